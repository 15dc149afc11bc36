import json
import shutil
import time

import pytest
import torch
from safetensors import safe_open

from mllm_npu.distributed import checkpoint as module_under_test
from mllm_npu.distributed.checkpoint import Checkpoints
from mllm_npu.distributed.checkpoint_files import ShardWriter
from mllm_npu.errors import CheckpointError


def save(checkpoints, step, value=1.0, **more):
    tensors = {"weight": torch.full((2, 3), value), "step": torch.tensor(value), **more}
    checkpoints.save(step, tensors=tensors, values={"name": "a", "numbers": [1, 2.5]})
    checkpoints.wait()


def load(checkpoints, step=None):
    step = checkpoints.latest_step() if step is None else step
    tensors = {
        name: torch.zeros(found.shape, dtype=found.dtype)
        for name, found in checkpoints.shapes(step).items()
    }
    checkpoints.load(step, tensors)
    return tensors


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=[True, False], ids=["asynchronous", "synchronous"])
def asynchronous(request):
    return request.param


def test_gives_back_what_was_saved(tmp_path, asynchronous):
    checkpoints = Checkpoints(folder=tmp_path / "run", config="a: 1\n", asynchronous=asynchronous)
    assert checkpoints.latest_step() is None
    flat = torch.arange(6.0)
    kinds = {
        "half": torch.randn(3, 2).bfloat16(),
        "flag": torch.tensor(True),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "views": flat[3:],
        "turned": flat.view(2, 3).T,
        "empty": torch.zeros(0, 4),
    }
    save(checkpoints, 300, **kinds)
    assert checkpoints.latest_step() == 300
    loaded = load(checkpoints)
    assert loaded["step"].shape == ()
    assert torch.equal(loaded["weight"], torch.ones(2, 3))
    for name, tensor in kinds.items():
        assert torch.equal(loaded[name], tensor), name
        assert loaded[name].dtype is tensor.dtype
    assert checkpoints.values(300) == {"name": "a", "numbers": [1, 2.5]}
    assert (tmp_path / "run" / "step-00000300" / "config.yaml").read_text() == "a: 1\n"


def test_a_folder_holds_text_and_safetensors_and_nothing_that_could_run(tmp_path):
    checkpoints = Checkpoints(folder=tmp_path)
    save(checkpoints, 3)
    folder = tmp_path / "step-00000003"
    shards = [path for path in folder.iterdir() if path.suffix == ".safetensors"]
    others = {path.name for path in folder.iterdir()} - {path.name for path in shards}
    assert others == {"config.yaml", "index.json", "state.json"}
    assert len(shards) == 1
    with safe_open(shards[0], framework="pt") as opened:
        assert set(opened.keys()) == {"weight", "step"}
    for name in ("index.json", "state.json"):
        json.loads((folder / name).read_text(encoding="utf-8"))
    assert names(tmp_path) == ["latest", "step-00000003"]
    assert not list(tmp_path.rglob(".*"))


def test_what_training_changes_while_a_checkpoint_is_written_is_not_in_it(tmp_path, monkeypatch):
    write = ShardWriter.write_data

    def write_slowly(self, *args):
        time.sleep(0.3)
        return write(self, *args)

    monkeypatch.setattr(ShardWriter, "write_data", write_slowly)
    checkpoints = Checkpoints(folder=tmp_path)
    tensors = {"a": torch.zeros(1000), "b": torch.zeros(3, 3).bfloat16()}
    begin = time.monotonic()
    checkpoints.save(1, tensors=tensors, values={})
    assert time.monotonic() - begin < 0.25
    for tensor in tensors.values():
        tensor.fill_(7.0)
    assert checkpoints.latest_step() is None
    checkpoints.wait()
    assert checkpoints.latest_step() == 1
    assert not any(tensor.any() for tensor in load(checkpoints).values())


def test_the_next_save_waits_for_the_one_in_progress(tmp_path, monkeypatch):
    write = ShardWriter.write_data
    running = []

    def write_alone(self, *args):
        running.append(1)
        assert len(running) == 1
        time.sleep(0.05)
        running.pop()
        return write(self, *args)

    monkeypatch.setattr(ShardWriter, "write_data", write_alone)
    checkpoints = Checkpoints(folder=tmp_path, keep_last=9)
    for step in (1, 2, 3):
        checkpoints.save(step, tensors={"a": torch.ones(step)}, values={})
    checkpoints.wait()
    assert [len(load(checkpoints, step)["a"]) for step in (1, 2, 3)] == [1, 2, 3]


def test_keeps_the_newest(tmp_path):
    checkpoints = Checkpoints(folder=tmp_path, keep_last=2)
    for step in (1, 2, 10):
        save(checkpoints, step, float(step))
    assert names(tmp_path) == ["latest", "step-00000002", "step-00000010"]
    assert checkpoints.latest_step() == 10
    assert load(checkpoints, 2)["step"] == 2.0


def test_keeps_more_than_there_are(tmp_path):
    checkpoints = Checkpoints(folder=tmp_path, keep_last=6)
    for step in (1, 2, 3, 4):
        save(checkpoints, step)
    assert len(names(tmp_path)) == 5


def test_every_so_many_updates_one_stays(tmp_path):
    checkpoints = Checkpoints(folder=tmp_path, keep_last=1, keep_every=4)
    for step in range(2, 13, 2):
        save(checkpoints, step)
    assert names(tmp_path) == ["latest", "step-00000004", "step-00000008", "step-00000012"]


def test_after_a_step_back_the_newest_is_not_the_one_with_the_highest_number(tmp_path):
    checkpoints = Checkpoints(folder=tmp_path, keep_last=1, keep_every=10)
    for step in (10, 20, 30, 15):
        save(checkpoints, step, float(step))
    assert checkpoints.latest_step() == 15
    assert load(checkpoints)["step"] == 15.0


def test_the_same_step_is_written_anew(tmp_path, asynchronous):
    checkpoints = Checkpoints(folder=tmp_path, keep_last=2, asynchronous=asynchronous)
    for step, value in ((10, 1.0), (20, 2.0), (20, 3.0)):
        save(checkpoints, step, value)
    assert load(checkpoints)["step"] == 3.0
    assert names(tmp_path) == ["latest", "step-00000010", "step-00000020"]


@pytest.mark.parametrize("next_step", [20, 30])
def test_while_a_folder_takes_anothers_place_the_old_one_is_read(tmp_path, next_step):
    checkpoints = Checkpoints(folder=tmp_path, keep_last=1)
    save(checkpoints, 20, 2.0)
    (tmp_path / "step-00000020").rename(tmp_path / "step-00000020.outdated")
    (tmp_path / "step-00000020.partial").mkdir()
    assert checkpoints.latest_step() == 20
    assert load(checkpoints)["step"] == 2.0
    save(checkpoints, next_step, 3.0)
    assert load(checkpoints, next_step)["step"] == 3.0
    assert not list(tmp_path.glob("*.outdated"))


def test_a_save_that_was_killed_is_not_seen(tmp_path):
    checkpoints = Checkpoints(folder=tmp_path)
    save(checkpoints, 1)
    leftover = tmp_path / "step-00000002.partial"
    shutil.copytree(tmp_path / "step-00000001", leftover)
    (leftover / "shard-00009-model-00001-of-00001.safetensors").write_bytes(b"half")
    assert checkpoints.latest_step() == 1
    save(checkpoints, 2)
    assert checkpoints.latest_step() == 2
    assert names(tmp_path / "step-00000002") == names(tmp_path / "step-00000001")
    assert leftover.name not in names(tmp_path)


def test_a_failed_save_leaves_the_last_one_valid(tmp_path, monkeypatch, asynchronous):
    checkpoints = Checkpoints(folder=tmp_path, asynchronous=asynchronous)
    save(checkpoints, 1)
    monkeypatch.setattr(module_under_test.json, "dumps", fail)
    with pytest.raises(CheckpointError, match=r"step 2 was to be .*No space left.*still valid"):
        save(checkpoints, 2)
    monkeypatch.undo()
    assert names(tmp_path) == ["latest", "step-00000001"]
    assert load(checkpoints)["step"] == 1.0
    save(checkpoints, 3, 3.0)
    assert load(checkpoints)["step"] == 3.0


def fail(*_, **__):
    raise OSError(28, "No space left on device")


def test_a_place_that_cannot_be_written_is_named(tmp_path, asynchronous):
    (tmp_path / "file").touch()
    checkpoints = Checkpoints(folder=tmp_path / "file" / "run", asynchronous=asynchronous)
    with pytest.raises(CheckpointError, match=r"file/run/step-00000001: .*Not a directory"):
        save(checkpoints, 1)


@pytest.mark.parametrize("suffix", [".safetensors", "index.json", "state.json"])
@pytest.mark.parametrize("harm", ["cut", "rubbish", "gone"])
def test_a_broken_file_is_said_to_be_in_its_folder(tmp_path, suffix, harm):
    checkpoints = Checkpoints(folder=tmp_path)
    save(checkpoints, 4)
    save(checkpoints, 5)
    file = next(p for p in (tmp_path / "step-00000005").iterdir() if p.name.endswith(suffix))
    content = file.read_bytes()
    file.unlink()
    if harm != "gone":
        file.write_bytes(content[:-9] if harm == "cut" else b"\x80\x04rubbish" * 9)
    message = r"step-00000005 cannot be read: .*Delete it and .*another one.*\['step-00000004'\]"
    if (suffix, harm) == ("index.json", "gone"):
        message = r"latest names 'step-00000005', which is not there; found \['step-00000004'\]"
    with pytest.raises(CheckpointError, match=message):
        read_all(checkpoints)
    assert load(checkpoints, 4)["step"] == 1.0


def read_all(checkpoints):
    step = checkpoints.latest_step()
    checkpoints.values(step)
    return load(checkpoints, step)


def test_where_there_is_no_other_one_that_is_said(tmp_path):
    checkpoints = Checkpoints(folder=tmp_path)
    save(checkpoints, 5)
    (tmp_path / "step-00000005" / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match="there is no other"):
        checkpoints.values(5)


def test_a_missing_folder_is_named_with_what_there_is(tmp_path):
    checkpoints = Checkpoints(folder=tmp_path)
    save(checkpoints, 5)
    (tmp_path / "latest").write_text("step-00000009\n")
    with pytest.raises(CheckpointError, match=r"step-00000009.*step-00000005"):
        checkpoints.latest_step()
    for read in (checkpoints.values, checkpoints.shapes, lambda step: checkpoints.load(step, {})):
        with pytest.raises(CheckpointError, match=r"step 7 was asked.*step-00000005"):
            read(7)


def test_another_format_is_refused(tmp_path):
    checkpoints = Checkpoints(folder=tmp_path)
    save(checkpoints, 5)
    file = tmp_path / "step-00000005" / "state.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 99}))
    with pytest.raises(CheckpointError, match="format 99"):
        checkpoints.values(5)


def test_tensors_it_does_not_hold_or_of_another_shape_are_an_error(tmp_path):
    checkpoints = Checkpoints(folder=tmp_path)
    save(checkpoints, 5)
    for wanted in ({"nothing": torch.ones(1)}, {"weight": torch.ones(3, 3)}):
        with pytest.raises(CheckpointError, match="step-00000005 cannot be read"):
            checkpoints.load(5, wanted)


@pytest.mark.parametrize("settings", [{"keep_last": 0}, {"keep_every": 0}])
def test_refuses_to_keep_none(tmp_path, settings):
    (name,) = settings
    with pytest.raises(CheckpointError, match=f"{name}=0"):
        Checkpoints(folder=tmp_path, **settings)
