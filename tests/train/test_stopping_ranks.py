"""Whichever rank is asked to stop, all of them stop behind the same step and its checkpoint."""

import os
import signal
import subprocess
import sys
import time

import pytest
from launching import Launch
from tiny_training import metrics, stored
from train_until_stopped import train_until_stopped

pytestmark = pytest.mark.slow


def wait_for_steps(folder, running):
    deadline = time.monotonic() + 90
    while not (folder / "metrics.jsonl").is_file() or not metrics(folder):
        assert running(), "it has ended before it was asked to"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def assert_saved(folder, step):
    assert (folder / "checkpoints" / "latest").read_text().strip() == f"step-{step:08d}"
    assert stored(folder)["optimizer/step/projector.query"] == step
    assert metrics(folder)[-1]["step"] == step
    assert not list(folder.rglob("*.partial"))


@pytest.mark.parametrize(("rank", "number"), [(0, signal.SIGINT), (1, signal.SIGTERM)])
def test_a_signal_to_one_rank_stops_all_behind_one_step(tmp_path, rank, number):
    launched = Launch(train_until_stopped, 2, tmp_path)
    wait_for_steps(tmp_path, launched.processes[0].is_alive)
    launched.signal(rank, number)
    begin = time.monotonic()
    one, other = launched.results()
    assert time.monotonic() - begin < 20
    assert one == other > 1
    assert_saved(tmp_path, one)


def test_a_signal_to_torchrun_stops_all_behind_one_step(tmp_path, root):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    running = subprocess.Popen(
        [*launch, str(root / "tests" / "ranks" / "train_until_stopped.py"), str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    try:
        wait_for_steps(tmp_path, lambda: running.poll() is None)
        running.send_signal(signal.SIGTERM)
        _, said = running.communicate(timeout=60)
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
    steps = {int((tmp_path / f"stopped-{rank}").read_text()) for rank in (0, 1)}
    assert len(steps) == 1, said
    assert_saved(tmp_path, steps.pop())
    assert "Sending process" in said
    assert "SIGKILL" not in said
