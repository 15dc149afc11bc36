"""Checkpoints when things go wrong: processes that are killed, disks that are full."""

import os
import random
import signal
import subprocess
import time

import pytest
import torch
from launching import Launch, launch
from play_checkpoints import fill_a_small_disk, save_again_and_again, write_where_nobody_can

from mllm_npu.distributed.checkpoint import Checkpoints

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
