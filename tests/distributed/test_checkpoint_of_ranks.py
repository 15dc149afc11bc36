"""Checkpoints when things go wrong: processes that are killed, disks that are full."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from itertools import count
from pathlib import Path

import pytest
import torch
from launching import Launch, launch
from play_checkpoints import fill_a_small_disk, save_again_and_again, write_where_nobody_can

from mllm_npu.distributed.checkpoint import Checkpoints
from mllm_npu.errors import CheckpointError

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("again", [False, True], ids=["new steps", "the same step twice"])
def test_a_process_killed_at_any_moment_leaves_a_whole_checkpoint(tmp_path, again):
    """``latest`` names a folder that is whole, also while one folder takes another's place."""
    moments = random.Random(7)
    reached = 0
    for _ in range(8):
        running = Launch(save_again_and_again, 1, tmp_path, again=again)
        wait_for(tmp_path / "latest", newer_than=time.time() if reached else 0.0)
        time.sleep(moments.uniform(0.0, 0.25))
        running.signal(0, signal.SIGKILL)
        assert running.end() == [-signal.SIGKILL]
        checkpoints = Checkpoints(folder=tmp_path)
        step = checkpoints.latest_step()
        assert step is not None
        assert checkpoints.values(step) == {"step": step}
        shapes = checkpoints.shapes(step)
        assert len(shapes) == 20
        tensors = {name: torch.zeros(found.shape) for name, found in shapes.items()}
        checkpoints.load(step, tensors)
        for name, tensor in tensors.items():
            assert torch.equal(tensor, torch.full((100, 10), float(step))), name
        reached = max(reached, step)
    assert reached > 1


def wait_for(path, *, newer_than):
    deadline = time.monotonic() + 30
    while not path.is_file() or path.stat().st_mtime < newer_than:
        assert time.monotonic() < deadline, f"{path} was not written"
        time.sleep(0.01)


@pytest.mark.parametrize("next_step", [20, 30])
def test_no_file_operation_can_cost_the_newest_one(tmp_path, monkeypatch, next_step):
    """The save breaks off in front of each of them in turn."""
    for number in count():
        folder = tmp_path / str(number)
        checkpoints = Checkpoints(folder=folder, keep_last=1, asynchronous=False)
        checkpoints.save(20, tensors={"a": torch.tensor(2.0)}, values={})
        with monkeypatch.context() as patch:
            broken_off = break_off_before(patch, number)
            with contextlib.suppress(CheckpointError, OSError):
                checkpoints.save(next_step, tensors={"a": torch.tensor(3.0)}, values={})
        assert newest_value(folder) in (2.0, 3.0)
        if not broken_off:
            break
    assert number > 3
    assert newest_value(folder) == 3.0


def newest_value(folder):
    checkpoints = Checkpoints(folder=folder)
    found = {"a": torch.tensor(0.0)}
    checkpoints.load(checkpoints.latest_step(), found)
    return found["a"].item()


def break_off_before(patch, number):
    """Let operation ``number`` on the places of files fail; the list tells whether it came."""
    done, broken_off = [], []

    def counted(operation):
        def run(*args, **options):
            done.append(operation)
            if len(done) == number + 1:
                broken_off.append(operation)
                raise OSError(5, "Input/output error")
            return operation(*args, **options)

        return run

    for owner, name in ((Path, "rename"), (Path, "replace"), (shutil, "rmtree")):
        patch.setattr(owner, name, counted(getattr(owner, name)))
    return broken_off


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can make a small disk, and not in every container")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_full_disk_under_one_rank_is_told_by_all_and_costs_nothing(
    tmp_path, small_disk, asynchronous
):
    found = launch(
        fill_a_small_disk, size=2, folder=tmp_path, disk=small_disk, asynchronous=asynchronous
    )
    for rank, one in enumerate(found):
        assert "step 2 was to be written" in one["error"]
        assert "rank 1: " in one["error"]
        assert "No space left on device" in one["error"]
        assert "rank 0: " not in one["error"]
        assert one["left"] == ["latest", "step-00000001"]
        assert one["back"] == [1.0 + rank] * 10
        assert one["newest"] == 3


def test_a_folder_nobody_can_make_is_told_by_all(tmp_path):
    for errors in launch(write_where_nobody_can, size=2, folder=tmp_path):
        assert len(errors) == 2
        for error in errors:
            assert "Not a directory" in error
            assert "checkpoints/step-00000001" in error
