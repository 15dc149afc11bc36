"""Ranks this machine starts: how they end, and which one is named where they do not."""

import json
import sys
import time

import pytest

from mllm_npu.distributed.local_ranks import run_local_ranks

TOLD = """
import json, os
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
print(json.dumps({name: os.environ[name] for name in names}))
"""
ONE_FAILS = """
import os, sys, time
if os.environ["RANK"] == "1":
    print("first line", file=sys.stderr)
    raise SystemExit("ValueError: no such device")
time.sleep(60)
"""
ONE_IS_KILLED = """
import os, signal, time
if os.environ["RANK"] == "1":
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(60)
"""
ONE_ANSWERS = """
import os, sys, time
if os.environ["RANK"] == "0":
    print("rank 1 is silent")
    raise SystemExit(1)
time.sleep(60)
"""
ALL_HANG = "import time; time.sleep(60)"


def run(text: str, *, size: int = 2, seconds: float = 30.0):
    begin = time.monotonic()
    outcome = run_local_ranks([sys.executable, "-c", text], size, seconds=seconds)
    return outcome, time.monotonic() - begin


def test_ranks_are_told_what_torchrun_tells_them():
    outcome, _ = run(TOLD, size=3)
    assert (outcome.code, outcome.complaints) == (0, ())
    assert json.loads(outcome.output) == {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "3",
        "LOCAL_WORLD_SIZE": "3",
        "MASTER_ADDR": "127.0.0.1",
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ONE_FAILS, "ended with code 1: ValueError: no such device"),
        (ONE_IS_KILLED, "was ended by SIGKILL"),
    ],
)
def test_a_rank_that_fails_is_named_and_the_others_are_ended(text, words):
    outcome, spent = run(text)
    assert len(outcome.complaints) == 1
    assert outcome.complaints[0].startswith("rank 1 (process ")
    assert outcome.complaints[0].endswith(words)
    assert spent < 20


def test_an_answer_of_rank_0_says_more_than_that_others_wait():
    outcome, spent = run(ONE_ANSWERS)
    assert (outcome.code, outcome.output) == (1, "rank 1 is silent\n")
    assert outcome.complaints == ()
    assert spent < 20


def test_ranks_that_hang_are_ended_and_named():
    outcome, spent = run(ALL_HANG, seconds=0.5)
    assert [line.split(" (")[0] for line in outcome.complaints] == ["rank 0", "rank 1"]
    assert all("did not come to its end in time" in line for line in outcome.complaints)
    assert spent < 10


def test_rank_0_without_an_answer_has_failed():
    outcome, _ = run("import os; raise SystemExit(int(os.environ['RANK'] == '0'))")
    assert outcome.complaints[0].startswith("rank 0 (process ")
    assert "ended with code 1" in outcome.complaints[0]


def test_what_cannot_be_started_is_an_error():
    with pytest.raises(OSError, match="no-such-program"):
        run_local_ranks(["no-such-program"], 2, seconds=1)
