import time

import pytest
import torch

from mllm_npu.plan import steady_clock
from mllm_npu.plan.steady_clock import SteadyClock

CPU = torch.device("cpu")


@pytest.fixture
def looks(monkeypatch):
    """Seconds that the small step takes, in turn; the last one for ever."""
    seconds = []

    def work(self):
        return seconds.pop(0) if len(seconds) > 1 else seconds[0]

    monkeypatch.setattr(SteadyClock, "_work", work)
    monkeypatch.setattr(steady_clock, "_EVERY", 0.0)
    return seconds


def test_usual_is_the_median_behind_a_warm_up(looks):
    looks += [9.0, 9.0, 9.0, 1.0, 3.0, 2.0]
    assert SteadyClock(CPU).usual == 2.0


def test_seconds_of_a_slow_machine_count_less(looks):
    looks += [2.0]
    clock = SteadyClock(CPU, usual=1.0)
    assert clock.factor() == 0.5
    clock.start()
    begin = time.process_time()
    while time.process_time() < begin + 0.02:
        pass
    assert clock.read() * torch.get_num_threads() == pytest.approx(0.01, rel=0.2)


def test_one_slow_look_changes_nothing(looks):
    looks += [1.0] * 5 + [7.0, 1.0]
    clock = SteadyClock(CPU, usual=1.0)
    assert [clock.factor() for _ in range(4)] == [1.0, 1.0, 1.0, 1.0]


def test_looks_are_not_made_all_the_time(looks, monkeypatch):
    looks += [1.0]
    clock = SteadyClock(CPU, usual=1.0)
    monkeypatch.setattr(steady_clock, "_EVERY", 1e9)
    clock.factor()
    looks[0] = 5.0
    assert clock.factor() == 1.0


def test_the_small_step_is_made():
    clock = SteadyClock(CPU)
    assert 1e-4 < clock.usual < 5
    assert 0.05 < clock.factor() < 20


def test_accelerators_are_not_shared(monkeypatch):
    monkeypatch.setattr(steady_clock, "processor_or_wall", lambda device: time.perf_counter())
    clock = SteadyClock(torch.device("meta"))
    assert clock.usual == 1.0
    assert clock.factor() == 1.0
    clock.start()
    assert 0 < clock.read() < 1
