"""Folders of runs, stages, models and checkpoints are found as what they are."""

import os

import pytest

from mllm_npu.compare.weights_folder import find_weights
from mllm_npu.errors import ConfigError


def make_stage(folder, *, model=True, checkpoint=False):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("name: x\n")
    if model:
        (folder / "model").mkdir()
        (folder / "model" / "model.yaml").write_text("name: x\n")
    if checkpoint:
        step = folder / "checkpoints" / "step-00000007"
        step.mkdir(parents=True)
        (step / "index.json").write_text("{}")
        (folder / "checkpoints" / "latest").write_text("step-00000007\n")
    return folder


def test_a_stage_is_its_model(tmp_path):
    stage = make_stage(tmp_path / "a", checkpoint=True)
    found = find_weights(stage)
    assert (found.stage, found.model, found.step) == (stage, stage / "model", None)


def test_a_stage_without_a_model_is_its_newest_checkpoint(tmp_path):
    stage = make_stage(tmp_path / "a", model=False, checkpoint=True)
    found = find_weights(stage)
    assert (found.stage, found.model, found.step) == (stage, None, None)


def test_a_checkpoint_is_itself(tmp_path):
    stage = make_stage(tmp_path / "a", checkpoint=True)
    found = find_weights(stage / "checkpoints" / "step-00000007")
    assert (found.stage, found.model, found.step) == (stage, None, 7)


def test_a_run_is_its_newest_stage_that_has_weights(tmp_path):
    for number, name in enumerate(("vision", "mllm", "decoder")):
        stage = make_stage(tmp_path / "run" / name, model=name != "decoder")
        os.utime(stage / "config.yaml", (number, number))
    assert find_weights(tmp_path / "run").stage == tmp_path / "run" / "mllm"


def test_a_model_folder_knows_its_stage_if_it_lies_in_one(tmp_path):
    stage = make_stage(tmp_path / "a")
    found = find_weights(stage / "model")
    assert (found.stage, found.model) == (stage, stage / "model")
    alone = tmp_path / "exported"
    (stage / "model").rename(alone)
    found = find_weights(alone)
    assert (found.stage, found.model) == (None, alone)


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no run, stage, model or checkpoint"):
        find_weights(tmp_path)
    stage = make_stage(tmp_path / "a", model=False)
    with pytest.raises(ConfigError, match="neither a model nor a checkpoint yet"):
        find_weights(stage)
