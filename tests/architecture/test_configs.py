"""Every YAML that is shipped composes, and every model it describes builds without memory."""

import json

import pytest
import torch

from mllm_npu.build import build_model
from mllm_npu.config import CONFIG_FOLDER, ROOTS, load_config
from mllm_npu.errors import ConfigError

FILES = sorted(str(path.relative_to(CONFIG_FOLDER)) for path in CONFIG_FOLDER.rglob("*.yaml"))
ADDED = {"lora"}
"""Groups that are absent unless they are asked for."""
SMALL = {
    "models/language_model/folder.yaml": {"model_type": "llama", "hidden_size": 96},
    "models/vision_encoder/folder.yaml": {
        "model_type": "siglip_vision_model",
        "hidden_size": 96,
        "image_size": 16,
        "patch_size": 4,
    },
}


def selection(file: str) -> tuple[str, list[str]]:
    """Root and overrides that select a file: models/projector/mlp.yaml -> models/projector=mlp."""
    group, _, option = file.removesuffix(".yaml").rpartition("/")
    if not group:
        return option, []
    if group.startswith("experiment"):
        path = f"{group}/{option}".removeprefix("experiment/")
        return "training", [f"experiment={path}"]
    return "training", [f"{'+' if group in ADDED else ''}{group}={option}"]


def test_there_are_options_of_every_kind():
    groups = {file.rpartition("/")[0] for file in FILES}
    assert {
        "",
        "models",
        "models/vision_encoder",
        "models/projector",
        "models/language_model",
        "models/image_decoder",
        "dataset",
        "objective",
        "train",
        "experiment",
    } <= groups
    assert {f"{root}.yaml" for root in ROOTS} <= set(FILES)


@pytest.mark.parametrize("file", FILES)
def test_composes_and_builds_on_meta(file, tmp_path):
    root, overrides = selection(file)
    folder = SMALL.get(file)
    if folder is not None:
        (tmp_path / "config.json").write_text(json.dumps(folder))
        part = file.removeprefix("models/").split("/")[0]
        overrides = [*overrides, f"models.{part}.path={tmp_path}"]
    config = load_config(root, overrides)
    if config.models is None or folder is not None:
        return  # nothing to build, or weights that a real folder would hold
    with torch.device("meta"):
        model = build_model(config)
    parameters = list(model.parameters())
    assert parameters
    assert all(parameter.is_meta for parameter in parameters)


def test_an_option_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="no_such_option"):
        load_config("training", ["models/projector=no_such_option"])
