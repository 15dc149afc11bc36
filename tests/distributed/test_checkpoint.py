import json
import shutil

import pytest
import torch
from torch import nn

from mllm_npu.distributed import checkpoint as module_under_test
from mllm_npu.distributed.checkpoint import (
    Checkpoints,
    check_fit,
    load_module_tensors,
    module_tensors,
)
from mllm_npu.errors import CheckpointError


def save(checkpoints, step, value=1.0):
    tensors = {"objective": {"weight": torch.full((2, 3), value), "step": torch.tensor(value)}}
    return checkpoints.save(step, tensors=tensors, values={"name": "a", "numbers": [1, 2.5]})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_gives_back_what_was_saved(tmp_path):
    checkpoints = Checkpoints(folder=tmp_path / "run", config="a: 1\n")
    assert checkpoints.latest_step() is None
    folder = save(checkpoints, 300)
    assert folder.name == "step-00000300"
    assert names(folder) == ["config.yaml", "objective.safetensors", "state.json"]
    assert (folder / "config.yaml").read_text() == "a: 1\n"
    snapshot = checkpoints.load()
    assert snapshot.step == 300
    assert snapshot.values == {"name": "a", "numbers": [1, 2.5]}
    assert torch.equal(snapshot.group("objective")["weight"], torch.ones(2, 3))
    assert snapshot.group("objective")["step"].shape == ()
    with pytest.raises(CheckpointError, match="ema"):
        snapshot.group("ema")


def test_keeps_the_newest(tmp_path):
    checkpoints = Checkpoints(folder=tmp_path, keep_last=2)
    for step in (1, 2, 10):
        save(checkpoints, step, float(step))
    assert names(tmp_path) == ["latest", "step-00000002", "step-00000010"]
    assert checkpoints.latest_step() == 10
    assert checkpoints.load(2).group("objective")["step"] == 2.0
    save(checkpoints, 10, 11.0)
    assert checkpoints.load().group("objective")["step"] == 11.0


def test_a_failed_save_leaves_the_last_one_valid(tmp_path, monkeypatch):
    checkpoints = Checkpoints(folder=tmp_path)
    save(checkpoints, 1)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module_under_test, "save_file", fail)
    with pytest.raises(CheckpointError, match=r"No space left.*still valid"):
        save(checkpoints, 2)
    assert names(tmp_path) == ["latest", "step-00000001"]
    assert checkpoints.load().step == 1


def test_a_save_that_was_killed_is_not_seen(tmp_path):
    checkpoints = Checkpoints(folder=tmp_path)
    save(checkpoints, 1)
    (tmp_path / "step-00000002.partial").mkdir()
    assert checkpoints.latest_step() == 1
    save(checkpoints, 2)
    assert checkpoints.load().step == 2
    assert "step-00000002.partial" not in names(tmp_path)


@pytest.mark.parametrize("name", ["objective.safetensors", "state.json"])
def test_a_file_cut_off_is_named(tmp_path, name):
    checkpoints = Checkpoints(folder=tmp_path)
    file = save(checkpoints, 5) / name
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="step-00000005 cannot be read"):
        checkpoints.load()


def test_a_missing_folder_is_named_with_what_there_is(tmp_path):
    checkpoints = Checkpoints(folder=tmp_path)
    save(checkpoints, 5)
    (tmp_path / "latest").write_text("step-00000009\n")
    with pytest.raises(CheckpointError, match=r"step-00000009.*step-00000005"):
        checkpoints.load()
    with pytest.raises(CheckpointError, match=r"step 7 was asked.*step-00000005"):
        checkpoints.load(7)
    with pytest.raises(CheckpointError, match="latest was asked"):
        Checkpoints(folder=tmp_path / "empty").load()


def test_another_format_is_refused(tmp_path):
    checkpoints = Checkpoints(folder=tmp_path)
    file = save(checkpoints, 5) / "state.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 99}))
    with pytest.raises(CheckpointError, match="format 99"):
        checkpoints.load()


def test_refuses_to_keep_none(tmp_path):
    with pytest.raises(CheckpointError, match="keep_last=0"):
        Checkpoints(folder=tmp_path, keep_last=0)


def make_tied():
    module = nn.ModuleDict({"embed": nn.Embedding(4, 3), "head": nn.Linear(3, 4, bias=False)})
    module["head"].weight = module["embed"].weight
    module.register_buffer("mean", torch.zeros(3))
    return module


def test_module_with_tied_weights_goes_to_disk_and_back(tmp_path):
    module, other = make_tied(), make_tied()
    module.mean.fill_(2.0)
    tensors = module_tensors(module)
    assert set(tensors) == {"embed.weight", "mean"}
    checkpoints = Checkpoints(folder=tmp_path)
    checkpoints.save(1, tensors={"objective": tensors}, values={})
    load_module_tensors(other, checkpoints.load().group("objective"))
    assert torch.equal(other["head"].weight, module["embed"].weight)
    assert other["head"].weight is other["embed"].weight
    assert other.mean.tolist() == [2.0, 2.0, 2.0]


def test_views_of_one_memory_are_saved_apart(tmp_path):
    flat = torch.arange(6.0)
    tensors = {"a": flat[:3], "b": flat[3:], "c": flat.view(2, 3).T}
    checkpoints = Checkpoints(folder=tmp_path)
    checkpoints.save(1, tensors={"objective": tensors}, values={})
    loaded = checkpoints.load().group("objective")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


def test_differences_are_named_and_nothing_is_copied():
    module = nn.Linear(2, 2)
    before = module.weight.clone()
    found = {"weight": torch.zeros(2, 5), "scale": torch.ones(1)}
    with pytest.raises(CheckpointError) as error:
        load_module_tensors(module, found)
    message = str(error.value)
    assert "missing in the checkpoint: bias" in message
    assert "only in the checkpoint: scale" in message
    assert "weight [2, 5] instead of [2, 2]" in message
    assert torch.equal(module.weight, before)


def test_long_lists_are_cut():
    found = {f"layer.{number}": torch.ones(1) for number in range(9)}
    with pytest.raises(CheckpointError, match=r"layer\.3 and 5 more"):
        check_fit("the model", expected={}, found=found)


def test_a_broken_checkpoint_is_not_offered_instead_of_itself(tmp_path):
    checkpoints = Checkpoints(folder=tmp_path)
    for step in (1, 2):
        checkpoints.save(step, tensors={}, values={})
    (tmp_path / "step-00000002" / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"another one into .*: \['step-00000001'\]"):
        checkpoints.load()
    (tmp_path / "step-00000001" / "state.json").write_text("{")
    shutil.rmtree(tmp_path / "step-00000002")
    with pytest.raises(CheckpointError, match="there is no other"):
        checkpoints.load(1)
