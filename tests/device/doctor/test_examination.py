"""All checks of a machine in order; one that fails does not take the others along."""

import pytest

from mllm_npu.device.doctor import examination
from mllm_npu.device.doctor.examination import run_checks

ALWAYS = [
    "python",
    "torch",
    "transformers",
    "torch with torch_npu",
    "one accelerator",
    "torchvision",
    "threads",
    "memory",
    "disk",
    "shared memory",
    "open files",
    "CANN",
    "driver",
    "device files",
    "npu-smi",
]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(examination.machine, "busy_cores", lambda: 0.0)


def test_every_row_is_there_in_order(tmp_path):
    names = [check.name for check in run_checks(tmp_path)]
    assert names[: len(ALWAYS)] == ALWAYS
    assert "device cpu" in names
    assert names.index("env allocator") > names.index("device cpu")
    assert len(set(names)) == len(names)


def test_nothing_is_bad_here(tmp_path):
    assert [check for check in run_checks(tmp_path) if check.state == "bad"] == []


def test_whatever_is_not_good_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(examination.machine, "busy_cores", lambda: 100.0)
    monkeypatch.setattr(examination.machine, "available_gib", lambda: 0.1)
    checks = [check for check in run_checks(tmp_path) if check.state != "good"]
    assert {"threads", "memory"} <= {check.name for check in checks}
    assert all(check.advice for check in checks)


def test_a_check_that_fails_is_one_row_and_the_others_go_on(tmp_path, monkeypatch):
    def fail():
        raise PermissionError(13, "Permission denied", "/usr/local/Ascend")

    monkeypatch.setattr(examination.ascend, "examine_cann", fail)
    rows = {check.name: check for check in run_checks(tmp_path)}
    assert rows["CANN"].state == "notice"
    assert "PermissionError" in rows["CANN"].found
    assert list(rows)[: len(ALWAYS)] == ALWAYS


def test_variables_are_judged_where_ascend_is(tmp_path, monkeypatch):
    monkeypatch.setenv("TASK_QUEUE_ENABLE", "0")
    for on_npu in (False, True):
        monkeypatch.setattr(examination.ascend, "is_ascend", lambda on_npu=on_npu: on_npu)
        rows = {check.name: check for check in run_checks(tmp_path)}
        assert rows["env TASK_QUEUE_ENABLE"].state == ("notice" if on_npu else "good")
        assert rows["env TASK_QUEUE_ENABLE"].is_aside is not on_npu
