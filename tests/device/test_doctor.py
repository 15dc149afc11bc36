"""What the doctor finds, and that every check that is not good says what to do."""

import dataclasses
import importlib.metadata
import io
import json
import sys
from collections import namedtuple

import pytest
from rich.console import Console

from mllm_npu.device import doctor
from mllm_npu.device.doctor import Check, checks_table, run_checks


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch):
    """Two free cores, much memory and disk: the checks do not depend on what else runs."""
    monkeypatch.setattr(doctor, "usable_cores", lambda: 2)
    monkeypatch.setattr(doctor, "busy_cores", lambda: 0.0)
    monkeypatch.setattr(doctor, "available_gib", lambda: 20.0)
    monkeypatch.setattr(doctor, "machine_gib", lambda: 24.0)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)


def find(name: str, tmp_path) -> Check:
    return next(check for check in run_checks(tmp_path) if check.name == name)


def test_this_installation_is_healthy(tmp_path):
    checks = run_checks(tmp_path)
    assert all(check.state == "good" for check in checks)
    assert [check.name for check in checks] == [
        "python",
        "torch",
        "transformers",
        "torchvision",
        "threads",
        "memory",
        "disk",
        "device npu",
        "device cuda",
        "device cpu",
    ]


def test_rows_survive_json(tmp_path):
    rows = json.loads(json.dumps([dataclasses.asdict(check) for check in run_checks(tmp_path)]))
    assert all(set(row) == {"name", "state", "found", "advice"} for row in rows)
    assert all(isinstance(value, str) for row in rows for value in row.values())


def test_the_table_shows_every_row_with_its_advice():
    checks = [
        Check(name="disk", found="77 GiB free"),
        Check(name="torch", state="bad", found="2.8.1", advice="install another"),
    ]
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(checks_table(checks))
    lines = [line.split() for line in console.export_text().splitlines()]
    assert lines[0] == ["check", "state", "found", "advice"]
    assert lines[1] == ["disk", "good", "77", "GiB", "free"]
    assert lines[2] == ["torch", "bad", "2.8.1", "install", "another"]


def test_an_old_python_is_broken(monkeypatch, tmp_path):
    version = namedtuple("version", "major minor micro releaselevel serial")(3, 9, 2, "final", 0)
    monkeypatch.setattr(sys, "version_info", version)
    check = doctor._examine_python()
    assert check.state == "bad"
    assert check.found == "3.9.2, needed is 3.11 or newer"
    assert "make install" in check.advice


@pytest.mark.parametrize(("found", "state"), [("2.8.1", "bad"), ("2.10.0+cpu", "good")])
def test_a_version_is_compared_by_number(monkeypatch, tmp_path, found, state):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: found)
    assert doctor._examine_package("torch", (2, 9)).state == state


def test_a_missing_package_is_broken():
    check = doctor._examine_package("no-such-package", (1, 0))
    assert check.state == "bad"
    assert check.found.startswith("not installed")


def test_a_torchvision_that_cannot_be_imported_is_worse_than_none(monkeypatch, tmp_path):
    (tmp_path / "torchvision.py").write_text(
        'raise RuntimeError("operator torchvision::nms does not exist")\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    check = find("torchvision", tmp_path)
    assert check.state == "bad"
    assert "operator torchvision::nms does not exist" in check.found
    assert check.advice == "pip uninstall torchvision"


def test_busy_cores_are_noticed(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "busy_cores", lambda: 1.5)
    check = find("threads", tmp_path)
    assert check.state == "notice"
    assert check.found.startswith("1 of 2 cores")


def test_a_passive_wait_policy_is_noticed(monkeypatch, tmp_path):
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    check = find("threads", tmp_path)
    assert check.state == "notice"
    assert "unset OMP_WAIT_POLICY" in check.advice


def test_little_memory_and_disk_are_noticed(monkeypatch, tmp_path):
    usage = namedtuple("usage", "total used free")(2**40, 2**40, 2**29)
    monkeypatch.setattr(doctor, "available_gib", lambda: 1.0)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: usage)
    assert find("memory", tmp_path).state == "notice"
    disk = find("disk", tmp_path)
    assert disk.state == "notice"
    assert disk.found.startswith("0.5 GiB free")


def test_an_accelerators_package_that_cannot_be_loaded_is_broken(monkeypatch, tmp_path):
    (tmp_path / "torch_npu.py").write_text('raise ImportError("libhccl.so: not found")\n')
    monkeypatch.syspath_prepend(tmp_path)
    check = find("device npu", tmp_path)
    assert check.state == "bad"
    assert "libhccl.so: not found" in check.found
    assert "CANN" in check.advice


def test_whatever_is_not_good_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "busy_cores", lambda: 2.0)
    monkeypatch.setattr(doctor, "available_gib", lambda: 0.1)
    checks = [check for check in run_checks(tmp_path) if check.state != "good"]
    assert len(checks) >= 2
    assert all(check.advice for check in checks)
