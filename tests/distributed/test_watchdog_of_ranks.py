"""Real processes that hang, are killed, fail or leave while others train with them."""

import re
import signal
import time

import pytest
from launching import Launch
from play_watchdog import BAD_STEP, TIMEOUT, leave_early, train_until

from mllm_npu.distributed.watchdog import EXIT_HUNG

SIZES = {"ddp": 3, "fsdp2": 2}
OWN = {
    "fails": "DataError: shard-7.tar: sample 12 cannot be read. Copy it again.",
    "errs": "RuntimeError: mat1 and mat2 shapes cannot be multiplied",
}
ROUNDS = (
    (("ddp", "sleeps"), ("fsdp2", "sleeps")),
    (("ddp", "killed"), ("fsdp2", "killed")),
    (("ddp", "fails"), ("fsdp2", "errs")),
)
"""They mostly wait, so two of them wait side by side."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """Exit codes, logs and reports by kind and event."""
    found = {}
    for together in ROUNDS:
        running = {}
        for kind, event in together:
            folder = tmp_path_factory.mktemp(f"{kind}-{event}")
            launched = Launch(train_until, SIZES[kind], folder, kind=kind, event=event)
            running[kind, event] = launched
        for (kind, event), launched in running.items():
            if event == "killed":
                wait_for_steps(launched.folder / "metrics.jsonl")
                launched.signal(1, signal.SIGKILL)
            codes = launched.end()
            logs = [launched.log(rank) for rank in range(len(codes))]
            reports = {path.name: path.read_text() for path in launched.folder.glob("hangs/*")}
            found[kind, event] = codes, logs, reports
    return found


def wait_for_steps(metrics):
    deadline = time.monotonic() + 60
    while not metrics.is_file() or len(metrics.read_text().splitlines()) < 3:
        assert time.monotonic() < deadline, f"{metrics} was not written"
        time.sleep(0.02)


@pytest.mark.parametrize("kind", SIZES)
def test_a_rank_that_sleeps_in_its_step_is_named_by_all(ended, kind):
    codes, logs, reports = ended[kind, "sleeps"]
    assert codes[1] == EXIT_HUNG
    assert all(codes)
    for log in logs:
        assert "TrainingError: The run cannot go on: nothing has happened for" in log
        told = log.rpartition("the run waits for rank 1. ")[2].partition(". rank 0")[0]
        assert told.startswith("rank 1 (process ")
        seconds = re.search(rf"step {BAD_STEP}, forward pass for (\d+) s", told)
        # The others see what the rank told at its last look, up to a second ago; on a busy
        # machine it takes longer.
        assert TIMEOUT - 1 <= int(seconds[1]) <= TIMEOUT + 3
        assert "last exchange sum of " in told
        assert "samples " in told
        assert "-read" in told
    assert "_sleep" in reports["hang-rank1.txt"]


@pytest.mark.parametrize("kind", SIZES)
def test_a_killed_rank_is_named_by_all_others(ended, kind):
    codes, logs, _ = ended[kind, "killed"]
    assert codes[1] == -signal.SIGKILL
    for rank, log in enumerate(logs):
        if rank != 1:
            assert codes[rank] in (1, EXIT_HUNG)
            assert "TrainingError: The run cannot go on: rank 1 is gone" in log


@pytest.mark.parametrize(("kind", "event"), ROUNDS[2])
def test_a_rank_that_fails_says_so_and_the_others_say_who(ended, kind, event):
    codes, logs, _ = ended[kind, event]
    own = OWN[event]
    assert codes[1] == 1
    assert logs[1].rstrip().endswith(own)
    assert "The run cannot go on" not in logs[1]
    for rank, log in enumerate(logs):
        if rank != 1:
            assert codes[rank] in (1, EXIT_HUNG)
            assert f"TrainingError: The run cannot go on: rank 1 has failed: {own}" in log


def test_a_rank_that_comes_to_its_end_first_is_not_missed(tmp_path):
    launched = Launch(leave_early, 3, tmp_path)
    assert launched.results() == [{"verdict": None, "reports": []}] * 3
