"""Python, packages, and the pair of torch and torch_npu."""

import sys
from collections import namedtuple

import pytest

from mllm_npu.device.doctor import installation
from mllm_npu.device.doctor.installation import (
    examine_installation,
    examine_package,
    examine_pair,
    examine_python,
)

Version = namedtuple("Version", "major minor micro releaselevel serial")


def test_this_installation_is_whole():
    names = ["python", "torch", "transformers", "torch with torch_npu"]
    checks = examine_installation()
    assert [check.name for check in checks] == names
    assert all(check.state == "good" for check in checks)


def test_an_old_python_is_bad(monkeypatch):
    monkeypatch.setattr(sys, "version_info", Version(3, 9, 2, "final", 0))
    check = examine_python()
    assert check.state == "bad"
    assert check.found == "3.9.2, needed is 3.11 or newer"
    assert "make install" in check.advice


@pytest.mark.parametrize(
    ("found", "state"), [("2.8.1", "bad"), ("2.10.0+cpu", "good"), ("3.0", "good"), ("git", "bad")]
)
def test_a_version_is_compared_by_number(packages, found, state):
    packages(torch=found)
    assert examine_package("torch", (2, 9)).state == state


def test_a_missing_package_is_bad():
    check = examine_package("no-such-package", (1, 0))
    assert check.state == "bad"
    assert check.found.startswith("not installed")


def test_without_torch_npu_the_line_to_get_it_is_an_aside(packages):
    packages(torch="2.13.0+cpu", torch_npu=None)
    check = examine_pair()
    assert (check.state, check.is_aside) == ("good", True)
    assert check.advice.endswith("pip install --no-deps torch-npu==2.13.0")
    packages(torch="2.99.0", torch_npu=None)
    assert examine_pair().advice == ""


def test_a_pair_that_does_not_fit_is_bad_with_the_line_to_type(packages):
    packages(torch="2.13.0+cpu", torch_npu="2.12.0.post3")
    check = examine_pair()
    assert check.state == "bad"
    assert check.found.startswith("torch 2.13.0+cpu, torch_npu 2.12.0.post3: ")
    assert check.advice == "pip install --no-deps torch-npu==2.13.0"


def test_torch_npu_alone_is_bad(packages):
    packages(torch=None, torch_npu="2.9.0.post9")
    check = examine_pair()
    assert check.state == "bad"
    assert check.advice == "pip install torch==2.9.0"


def test_a_pair_that_fits_is_good(packages, monkeypatch):
    monkeypatch.setattr(installation.sys, "version_info", Version(3, 11, 7, "final", 0))
    packages(torch="2.9.0+cpu", torch_npu="2.9.0.post9")
    check = examine_pair()
    assert (check.state, check.is_aside) == ("good", False)


def test_a_python_without_wheels_is_bad(packages, monkeypatch):
    monkeypatch.setattr(installation.sys, "version_info", Version(3, 14, 0, "final", 0))
    packages(torch="2.9.0", torch_npu="2.9.0.post9")
    check = examine_pair()
    assert check.state == "bad"
    assert "wheels for Python 3.10 to 3.13" in check.found
    packages(torch="2.12.0", torch_npu="2.12.0")
    assert examine_pair().state == "good"


def test_a_release_nobody_knows_is_noticed(packages):
    packages(torch="2.77.0", torch_npu="2.77.0")
    check = examine_pair()
    assert check.state == "notice"
    assert "2.13.0" in check.advice
