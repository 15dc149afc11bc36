"""Threads, memory, disk, shared memory and open files, on a machine made up."""

import resource
from collections import namedtuple

import pytest

from mllm_npu.device.doctor import machine

Usage = namedtuple("Usage", "total used free")
GIB = 2**30


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch):
    """Two free cores and much memory: the checks do not depend on what else runs."""
    monkeypatch.setattr(machine, "usable_cores", lambda: 2)
    monkeypatch.setattr(machine, "busy_cores", lambda: 0.0)
    monkeypatch.setattr(machine, "available_gib", lambda: 20.0)
    monkeypatch.setattr(machine, "machine_gib", lambda: 24.0)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)


def free(monkeypatch, gib: float, total: float = 1024) -> None:
    usage = Usage(int(total * GIB), int((total - gib) * GIB), int(gib * GIB))
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda folder: usage)


def test_a_quiet_machine_is_good():
    for check in (machine.examine_threads(), machine.examine_memory()):
        assert (check.state, check.advice) == ("good", "")
    assert machine.examine_threads().figures == {"cores": 2, "threads": 2, "busy_cores": 0}


def test_busy_cores_are_noticed(monkeypatch):
    monkeypatch.setattr(machine, "busy_cores", lambda: 1.5)
    check = machine.examine_threads()
    assert check.state == "notice"
    assert check.found.startswith("1 of 2 cores")


def test_a_passive_wait_policy_is_noticed(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    check = machine.examine_threads()
    assert check.state == "notice"
    assert "unset OMP_WAIT_POLICY" in check.advice


def test_little_memory_and_disk_are_noticed(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "available_gib", lambda: 1.0)
    assert machine.examine_memory().state == "notice"
    free(monkeypatch, 0.5)
    check = machine.examine_disk(tmp_path)
    assert check.state == "notice"
    assert check.found.startswith("0.5 GiB free")
    free(monkeypatch, 50)
    assert machine.examine_disk(tmp_path).state == "good"


def test_a_containers_small_shared_memory_is_noticed(monkeypatch, tmp_path):
    free(monkeypatch, 0.0625, total=0.0625)
    check = machine.examine_shared_memory(tmp_path)
    assert check.state == "notice"
    assert "--shm-size" in check.advice
    free(monkeypatch, 12, total=24)
    assert machine.examine_shared_memory(tmp_path).state == "good"
    assert machine.examine_shared_memory(tmp_path / "none").is_aside


@pytest.mark.parametrize(
    ("limit", "highest", "state", "words"),
    [
        (1024, 524288, "notice", "ulimit -n 65536"),
        (1024, resource.RLIM_INFINITY, "notice", "ulimit -n 4096"),
        (1024, 2048, "notice", "the hard limit is as low"),
        (20000, 20000, "good", ""),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, "good", ""),
    ],
)
def test_a_low_limit_of_open_files_is_noticed(monkeypatch, limit, highest, state, words):
    monkeypatch.setattr(machine.resource, "getrlimit", lambda which: (limit, highest))
    check = machine.examine_open_files()
    assert check.state == state
    assert words in check.advice
