"""Rows about CANN, driver, device files and NPUs on machines of every kind."""

import os

import pytest

from mllm_npu.device.doctor import ascend
from mllm_npu.device.doctor.ascend import (
    examine_cann,
    examine_device_files,
    examine_driver,
    examine_npus,
    is_ascend,
)


@pytest.fixture
def look(fake_machine):
    """Calls a check on the machine that is made up."""
    return lambda check: check(fake_machine.root, fake_machine.devices)


@pytest.fixture(autouse=True)
def without_extension(packages):
    packages(torch_npu=None)


@pytest.fixture(autouse=True)
def loads(monkeypatch):
    """Says whether the dynamic loader finds CANN; it does not at first."""

    def set_loads(answer: bool) -> None:
        monkeypatch.setattr(ascend, "runtime_loads", lambda: answer)

    set_loads(False)
    return set_loads


def activate(monkeypatch, home):
    monkeypatch.setenv("ASCEND_TOOLKIT_HOME", str(home))


def test_a_machine_without_ascend_has_only_asides(look, fake_machine):
    assert look(is_ascend) is False
    for check in (look(examine_cann), look(examine_driver)):
        assert (check.state, check.is_aside) == ("good", True)
    assert examine_device_files(fake_machine.devices).is_aside


@pytest.mark.parametrize("what", ["package", "cann", "driver", "device"])
def test_any_trace_makes_it_an_ascend_machine(what, look, fake_machine, packages):
    if what == "package":
        packages(torch_npu="2.13.0")
    elif what == "cann":
        fake_machine.add_cann()
    elif what == "driver":
        fake_machine.add_driver()
    else:
        fake_machine.add_devices("davinci0")
    assert look(is_ascend) is True


def test_torch_npu_without_cann_is_bad(look, packages):
    packages(torch_npu="2.13.0")
    check = look(examine_cann)
    assert check.state == "bad"
    assert "install CANN" in check.advice


def test_a_cann_the_shell_does_not_use_names_the_script_to_source(look, fake_machine, packages):
    home = fake_machine.add_cann("9.1.0")
    check = look(examine_cann)
    assert (check.state, check.is_aside) == ("notice", False)
    assert check.advice == f"source {home.parent}/set_env.sh"
    packages(torch_npu="2.12.0")
    assert look(examine_cann).state == "bad"


@pytest.mark.parametrize(
    ("extension", "cann", "state", "words"),
    [
        ("2.12.0", "9.1.0", "good", ""),
        ("2.12.0", "8.5.0", "notice", "older than 9.1.0"),
        ("2.9.0", "9.1.0", "notice", "newer than 8.5.0"),
        ("2.13.0", "9.1.0", "good", "none is named yet"),
        ("2.77.0", "9.1.0", "good", ""),
        (None, "9.1.0", "good", ""),
    ],
)
def test_cann_is_compared_with_what_torch_npu_was_tested_with(
    look, fake_machine, packages, monkeypatch, extension, cann, state, words
):
    activate(monkeypatch, fake_machine.add_cann(cann))
    packages(torch_npu=extension)
    check = look(examine_cann)
    assert check.state == state
    assert words in check.found
    assert bool(check.advice) is (state != "good")


def test_a_cann_whose_libraries_load_is_in_use_wherever_it_lies(
    look, fake_machine, packages, loads
):
    loads(True)
    packages(torch_npu="2.12.0")
    check = look(examine_cann)
    assert check.state == "notice"
    assert "the version is not known" in check.found
    fake_machine.add_cann("9.1.0")
    assert look(examine_cann).state == "good"


def test_a_library_nobody_has_does_not_load(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(ascend, "_RUNTIME", "libno-such-thing.so")
    assert ascend.runtime_loads() is False
    monkeypatch.setattr(ascend, "_RUNTIME", None)  # the program itself
    assert ascend.runtime_loads() is True


def test_a_cann_without_a_version_is_noticed(look, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    activate(monkeypatch, tmp_path / "empty")
    check = look(examine_cann)
    assert check.state == "notice"
    assert check.found.startswith("unknown version")


def test_a_driver_that_is_missing_or_there(look, fake_machine):
    fake_machine.add_cann()
    check = look(examine_driver)
    assert check.state == "notice"
    assert "/usr/local/Ascend/driver" in check.advice
    fake_machine.add_driver("25.3.rc1")
    assert (look(examine_driver).state, look(examine_driver).found) == ("good", "25.3.rc1")


def test_a_driver_and_a_cann_that_do_not_name_each_other_are_noticed(look, fake_machine):
    fake_machine.add_cann("8.3.RC1", family="V100R001C23")
    fake_machine.add_driver("26.9", family="V100R001C77")
    check = look(examine_driver)
    assert check.state == "notice"
    assert "do not name each other" in check.found
    assert "V100R001C20" in check.advice


def test_missing_device_files_are_what_a_container_needs(fake_machine):
    fake_machine.add_devices("davinci0", "davinci1", "davinci_manager")
    check = examine_device_files(fake_machine.devices)
    assert check.state == "bad"
    assert check.found.endswith("missing: devmm_svm, hisi_hdc")
    assert f"--device={fake_machine.devices}/devmm_svm" in check.advice


def test_device_files_that_may_not_be_opened_are_bad(fake_machine, monkeypatch):
    fake_machine.add_devices("davinci0", "davinci_manager", "devmm_svm", "hisi_hdc")
    assert examine_device_files(fake_machine.devices).state == "good"
    monkeypatch.setattr(os, "access", lambda path, mode: path.name != "davinci0")
    check = examine_device_files(fake_machine.devices)
    assert check.state == "bad"
    assert "HwHiAiUser" in check.advice


TABLE = """| npu-smi 25.3.rc1                 Version: 25.3.rc1    |
| 0     910B3     | {first}   | 98.2        37         0    / 0             |
| 0               | 0000:C1:00.0  | 0     0    / 0   {used} / 65536         |
| 1     910B3     | OK      | 98.2        37         0    / 0             |
| 0               | 0000:C1:00.0  | 0     0    / 0   3440 / 65536         |
"""


@pytest.mark.parametrize(
    ("first", "used", "state", "words"),
    [
        ("OK", 3440, "good", "2 x 910B3, 64 GiB each"),
        ("Warning", 3440, "notice", "NPU 0 is Warning"),
        ("Critical", 3440, "bad", "NPU 0 is Critical"),
        ("OK", 61000, "notice", "in use: NPU 0 60 of 64 GiB"),
    ],
)
def test_npus_tell_how_they_are(monkeypatch, first, used, state, words):
    monkeypatch.setattr(ascend, "ask_npu_smi", lambda: TABLE.format(first=first, used=used))
    check = examine_npus()
    assert check.state == state
    assert words in check.found
    assert bool(check.advice) is (state != "good")


def test_no_tool_is_an_aside_and_no_npu_a_notice(monkeypatch):
    monkeypatch.setattr(ascend, "ask_npu_smi", lambda: None)
    assert examine_npus().is_aside
    monkeypatch.setattr(ascend, "ask_npu_smi", lambda: "| npu-smi 25.3 |\n")
    assert examine_npus().state == "notice"
