"""Every YAML that is shipped composes, and every model it describes builds without memory."""

import json
import subprocess
import sys

import pytest
import torch

from mllm_npu.build import build_model
from mllm_npu.config import CONFIG_FOLDER, ROOTS, load_config
from mllm_npu.errors import ConfigError

FILES = sorted(str(path.relative_to(CONFIG_FOLDER)) for path in CONFIG_FOLDER.rglob("*.yaml"))
ADDED = {"lora"}
"""Groups that are absent unless they are asked for."""
LANGUAGE = {"model_type": "llama", "hidden_size": 96, "vocab_size": 32000}
VISION = {
    "model_type": "siglip_vision_model",
    "hidden_size": 96,
    "image_size": 16,
    "patch_size": 4,
}
SMALL = {
    "models/language_model/folder.yaml": {"language_model": LANGUAGE},
    "models/vision_encoder/folder.yaml": {"vision_encoder": VISION},
    "experiment/seedx/pretrain.yaml": {"language_model": LANGUAGE},
    "experiment/mllm_llama3_8b_siglip_vit/pretrain.yaml": {
        "language_model": LANGUAGE,
        "vision_encoder": VISION,
    },
}
"""Files that name folders of a person's own, and what stands for those."""
SEEDX = ["models=seedx_llama2_13b_qwenvl_vit", "processor=seedx"]
TOGETHER = {
    "models/detokenizer_sdxl.yaml": ["processor=detokenizer"],
    "models/detokenizer_tiny.yaml": ["processor=detokenizer"],
    "models/mllm_llama3_8b_siglip_vit.yaml": ["processor=seedx"],
    "models/seedx_llama2_13b_qwenvl_vit.yaml": ["processor=seedx"],
    "processor/detokenizer.yaml": ["models=detokenizer_tiny"],
    "processor/seedx.yaml": ["models=seedx_llama2_13b_qwenvl_vit"],
    "processor/seedx_chat.yaml": ["models=seedx_llama2_13b_qwenvl_vit"],
    "lora/unet.yaml": SEEDX,
}
"""What else must be chosen beside a file."""
PARTS = {
    "generation/discrete_identity.yaml": "models.drawn_features",
    "generation/sd_xl_qwenvl_vit_resampler.yaml": "models.image_decoder",
}
"""Names of the original for what are parts of a model here."""


def selection(file: str) -> tuple[str, list[str]]:
    """Root and overrides that select a file: models/projector/mlp.yaml -> models/projector=mlp."""
    group, _, option = file.removesuffix(".yaml").rpartition("/")
    if not group:
        return option, []
    if group == "workers":
        return "model", [f"workers={option}"]
    if file in PARTS:
        return "training", [*SEEDX, f"+{group}@{PARTS[file]}={option}"]
    if group.startswith("experiment"):
        path = f"{group}/{option}".removeprefix("experiment/")
        return "training", [f"experiment={path}"]
    beside = TOGETHER.get(file, [])
    return "training", [*beside, f"{'+' if group in ADDED else ''}{group}={option}"]


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
    for part, values in (folder or {}).items():
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(json.dumps(values))
        overrides = [*overrides, f"models.{part}.path={tmp_path / part}"]
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


def test_seedx_builds_without_memory_and_soon():
    """All of it, the de-tokenizer included; the limits are 20 s (of the processor) and 1.5 GB."""
    code = """
import resource, time
begin = time.process_time()
import torch
from mllm_npu.build import build_model
from mllm_npu.config import load_config
config = load_config("training", ["models=seedx_llama2_13b_qwenvl_vit", "processor=seedx"])
with torch.device("meta"):
    model = build_model(config)
count = sum(p.numel() for p in model.parameters()) + sum(b.numel() for b in model.buffers())
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(count, time.process_time() - begin, peak)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120
    )
    count, seconds, gib = map(float, done.stdout.split())
    assert 17.5e9 < count < 18.5e9
    assert seconds < 20
    assert gib < 1.5
