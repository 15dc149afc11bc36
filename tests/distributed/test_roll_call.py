"""Ranks that are there find out which one is not, in bounded time."""

import time

import pytest
from launching import launch
from play_doctor import call_roll

from mllm_npu.distributed.roll_call import RollCall


@pytest.mark.slow
def test_all_are_there_or_one_is_missed_by_the_others(tmp_path):
    assert launch(call_roll, size=3, folder=tmp_path / "all", absent=None, timeout=30.0) == [()] * 3
    found = launch(call_roll, size=3, folder=tmp_path / "two", absent=1, timeout=2.0)
    assert found == [(1,), (), (1,)]


def test_a_store_nobody_holds_is_an_error_in_bounded_time(monkeypatch):
    for name, value in {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "9",
        "RANK": "1",
        "WORLD_SIZE": "2",
    }.items():
        monkeypatch.setenv(name, value)
    begin = time.monotonic()
    with pytest.raises(RuntimeError):
        RollCall(rank=1, world_size=2, timeout_seconds=1.0)
    assert time.monotonic() - begin < 20


def test_without_a_launcher_it_says_what_is_not_set(monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="MASTER_ADDR"):
        RollCall(rank=0, world_size=2, timeout_seconds=1.0)
