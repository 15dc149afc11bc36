"""Threads by load, with hysteresis, and the allocator."""

import os
import subprocess
import sys

import pytest
import torch

from mllm_npu.device import process
from mllm_npu.device.process import (
    ProcessTuning,
    ThreadWatch,
    busy_cores,
    choose_threads,
    tune_allocator,
    tune_process,
    usable_cores,
)
from mllm_npu.errors import ConfigError


@pytest.fixture(autouse=True)
def threads_restored():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def machine(monkeypatch):
    """Sets the machine the process believes it runs on."""

    def set_machine(*, cores: int, busy: float, load: float) -> None:
        monkeypatch.setattr(process, "usable_cores", lambda: cores)
        monkeypatch.setattr(process, "busy_cores", lambda: busy)
        monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))

    return set_machine


@pytest.mark.parametrize(
    ("cores", "busy", "threads"),
    [
        (2, 0.0, 2),
        (2, 0.5, 2),
        (2, 0.7, 1),
        (2, 2.0, 1),
        (2, 9.0, 1),
        (1, 0.0, 1),
        (16, 0.3, 16),
        (16, 3.0, 13),
        (16, 15.9, 1),
    ],
)
def test_other_work_takes_its_cores(cores, busy, threads):
    assert choose_threads(cores=cores, busy=busy) == threads


def test_a_choice_stays_while_the_load_is_near_the_border():
    assert choose_threads(cores=2, busy=0.7) == 1
    assert choose_threads(cores=2, busy=0.7, current=2) == 2
    assert choose_threads(cores=2, busy=0.5, current=1) == 1
    assert choose_threads(cores=2, busy=1.0, current=2) == 1
    assert choose_threads(cores=2, busy=0.1, current=1) == 2
    assert choose_threads(cores=2, busy=0.0, current=4) == 2


def test_a_quiet_machine_gets_all_cores_although_the_load_average_remembers(machine):
    machine(cores=2, busy=0.05, load=1.8)
    tuning = tune_process("auto")
    assert (tuning.threads, tuning.cores, tuning.busy_cores) == (2, 2, 0.05)
    assert torch.get_num_threads() == 2


def test_a_busy_machine_gets_one_thread(machine):
    machine(cores=2, busy=1.9, load=4.0)
    assert tune_process("auto").threads == 1
    assert torch.get_num_threads() == 1


def test_a_second_call_ignores_the_load_average_its_own_work_raised(machine):
    before = ProcessTuning(threads=2, cores=2, busy_cores=0.0, allocator_tuned=True)
    machine(cores=2, busy=1.4, load=0.0)
    again = tune_process("auto", previous=before)
    assert again.threads == 1
    assert again.allocator_tuned


def test_a_number_is_taken_as_it_is(machine):
    machine(cores=2, busy=2.0, load=2.0)
    assert tune_process(2).threads == 2
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("threads", [0, -1, "many", 1.5, True])
def test_what_is_no_number_of_threads_is_refused(threads):
    with pytest.raises(ConfigError, match="from 1 on, or auto"):
        tune_process(threads)


def test_own_work_does_not_count_as_busy():
    begin = torch.get_num_threads()
    assert 0.0 <= busy_cores(0.05) <= len(os.sched_getaffinity(0)) + 0.5
    assert torch.get_num_threads() == begin


def test_ticks_are_counted_on_own_cores_without_idle_and_waiting(tmp_path, monkeypatch):
    statistics = tmp_path / "stat"
    statistics.write_text(
        "cpu 1 1 1 1 1 1 1 1 0 0\n"
        "cpu0 10 1 20 900 50 3 4 5 7 7\n"
        "cpu1 100 0 0 0 0 0 0 0 0 0\n"
        "intr 12\n"
    )
    monkeypatch.setattr(process, "_own_cores", lambda: {0})
    assert process._busy_ticks(statistics) == 10 + 1 + 20 + 3 + 4 + 5
    assert process._busy_ticks(tmp_path / "absent") is None


def test_a_control_group_cuts_the_cores(tmp_path):
    limits = tmp_path / "cpu.max"
    limits.write_text("150000 100000\n")
    assert process._cpu_quota(limits) == 1.5
    limits.write_text("max 100000\n")
    assert process._cpu_quota(limits) is None
    assert process._cpu_quota(tmp_path / "absent") is None
    assert 1 <= usable_cores() <= os.cpu_count()


def test_the_allocator_keeps_what_was_freed():
    program = (
        "import sys, torch\n"
        "from mllm_npu.device.memory import rss_gib\n"
        "from mllm_npu.device.process import tune_allocator\n"
        "tuned = len(sys.argv) > 1 and tune_allocator()\n"
        "before = rss_gib()\n"
        "tensor = torch.ones(64, 1024, 1024)\n"
        "del tensor\n"
        "print(rss_gib() - before > 0.2)\n"
    )

    def keeps(*arguments: str) -> str:
        command = [sys.executable, "-c", program, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    if process.platform.libc_ver()[0] != "glibc":
        pytest.skip("the C library is not glibc")
    assert keeps() == "False"
    assert keeps("tuned") == "True"


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(process.platform, "libc_ver", lambda: ("", ""))
    assert tune_allocator() is False


class Load:
    """What the machine did, as the watch reads it: clock, busy seconds, own seconds."""

    def __init__(self, monkeypatch, *readings):
        waiting = iter(readings)
        monkeypatch.setattr(ThreadWatch, "_now", lambda self: next(waiting))
        monkeypatch.setattr(process, "usable_cores", lambda: 2)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_the_watch_gives_a_core_away_and_takes_it_back(monkeypatch, two_threads):
    Load(monkeypatch, (0.0, 0.0, 0.0), (10.0, 20.0, 10.0), (20.0, 30.0, 20.0))
    watch = ThreadWatch("auto")
    assert watch.look() == torch.get_num_threads() == 1
    assert watch.look() == torch.get_num_threads() == 2


def test_the_watch_leaves_a_quiet_machine_alone(monkeypatch, two_threads):
    Load(monkeypatch, (0.0, 0.0, 0.0), (10.0, 20.0, 19.5))
    assert ThreadWatch("auto").look() == 2


def test_looks_close_together_change_nothing(monkeypatch, two_threads):
    Load(monkeypatch, (0.0, 0.0, 0.0), (1.0, 2.0, 0.0))
    assert ThreadWatch("auto", seconds=5.0).look() == 2


def test_a_number_of_threads_is_never_changed(monkeypatch, two_threads):
    Load(monkeypatch)
    assert ThreadWatch(2).look() == 2


def test_the_watch_reads_the_real_machine(two_threads):
    watch = ThreadWatch("auto", seconds=0.0)
    assert watch.look() in (1, 2)
