import json
import shutil

import pytest
import torch
from launching import launch
from play_export import train_stages
from safetensors.torch import load_file

from mllm_npu.errors import CheckpointError, ConfigError
from mllm_npu.export import export_stage
from mllm_npu.model_folder import load_model
from mllm_npu.models.tiny import tiny_language_model

LORA = ["+lora=language_model", "lora.rank=2", "objective=lora", "objective.feature_cache=null"]
STAGES = {
    "averaged": ["train.ema_decay=0.5"],
    "lora": [*LORA, "train.ema_decay=0.5"],
    "thin lora": [*LORA, "train.save_frozen=false"],
    "thin part": ["objective.trainable=['*','!language_model.*']", "train.save_frozen=false"],
}
"""Frozen values of the last two are in no checkpoint: they come from where the run took them."""


def read(folder):
    return load_file(folder / "model.safetensors")


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype is value.dtype, name
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5, msg=name)


@pytest.fixture(scope="module")
def stages(world, tmp_path_factory):
    """Overrides of the stages; their weights lie where they name them."""
    folder = tmp_path_factory.mktemp("start")
    start = {"begin": [f"tokenizer.path={world / 'tokenizer'}", "train.max_steps=1", "seed=5"]}
    train_stages(folder, stages=start)
    torch.manual_seed(8)
    tiny_language_model().causal_lm.save_pretrained(folder / "language")
    begin = f"initialise_from={folder / 'begin' / 'model'}"
    own = [
        f"+models.language_model.path={folder / 'language'}",
        "models.language_model.config=null",
        "+models.language_model.vocab_size=512",
        "processor.max_tokens=256",
    ]
    more = {"thin lora": [begin], "thin part": own}
    return {
        name: [start["begin"][0], *overrides, *more.get(name, [])]
        for name, overrides in STAGES.items()
    }


@pytest.fixture(scope="module")
def alone(stages, tmp_path_factory):
    """The stages on one process, which saves the model it holds."""
    folder = tmp_path_factory.mktemp("alone")
    assert train_stages(folder, stages=stages) == list(STAGES)
    return folder


@pytest.mark.parametrize("name", STAGES)
def test_a_checkpoint_gives_the_model_that_was_saved_at_the_end(alone, tmp_path, name):
    """Updates folded in, averages in the place of weights, frozen values from where they were."""
    assert export_stage(alone / name, tmp_path / "out") == 3
    saved, found = read(alone / name / "model"), read(tmp_path / "out")
    assert found.keys() == saved.keys()
    for key, value in saved.items():
        assert torch.equal(found[key], value), key
    assert not [key for key in found if "lora_" in key or "base_layer" in key]
    model, _, config = load_model(tmp_path / "out")
    assert config.lora is None
    assert not any(parameter.is_meta for parameter in model.parameters())


@pytest.mark.slow
def test_a_sharded_run_gives_the_model_of_one_process(alone, stages, tmp_path):
    names = ["lora", "thin part"]
    sharded = {name: [*stages[name], "parallel=fsdp2"] for name in names}
    ranks = launch(train_stages, size=2, folder=tmp_path, stages=sharded)
    assert ranks == [names] * 2
    for name in names:
        assert_close(read(tmp_path / name / "model"), read(alone / name / "model"))
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        assert summary["steps"] == 3


def test_weights_may_be_taken_as_they_are_and_not_averaged(alone, tmp_path):
    export_stage(alone / "averaged", tmp_path / "last", averaged=False)
    last, averaged = read(tmp_path / "last"), read(alone / "averaged" / "model")
    moved = {name.split(".")[0] for name in last if not torch.equal(last[name], averaged[name])}
    assert moved >= {"language_model", "projector", "output_projector"}
    frozen = "vision_encoder.vision_model.post_layernorm.weight"
    assert torch.equal(last[frozen], averaged[frozen])
    export_stage(alone / "thin lora", tmp_path / "plain", averaged=True)
    assert_close(read(tmp_path / "plain"), read(alone / "thin lora" / "model"))


@pytest.mark.parametrize(
    ("step", "message"), [(7, "step 7 was asked for"), (None, "there is none")]
)
def test_a_checkpoint_that_is_not_there_is_refused(alone, tmp_path, step, message):
    folder = tmp_path / "stage"
    shutil.copytree(alone / "averaged", folder)
    if step is None:
        shutil.rmtree(folder / "checkpoints")
    with pytest.raises(CheckpointError, match=message):
        export_stage(folder, tmp_path / "out", step=step)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_configuration_is_no_stage(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.yaml was asked for and is not there"):
        export_stage(tmp_path, tmp_path / "out")


def test_frozen_values_that_nobody_kept_are_named(stages, tmp_path):
    """The run began at random and left out what it did not train."""
    train_stages(tmp_path, stages={"lost": [*stages["averaged"], "train.save_frozen=false"]})
    with pytest.raises(CheckpointError, match=r"step 3 lacks \d+ values of the model: \['"):
        export_stage(tmp_path / "lost", tmp_path / "out")
