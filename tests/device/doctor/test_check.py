"""Rows, and what they say together; a look that fails is a row too."""

import json
import math
import subprocess

import pytest

from mllm_npu.device.doctor.check import (
    Check,
    as_report,
    examine,
    fault,
    read_checks,
    verdict,
    worst,
)
from mllm_npu.errors import DeviceError

GOOD = Check(name="disk", found="77 GiB free")
NOTICE = Check(name="threads", state="notice", found="1 of 2", advice="wait")
BAD = Check(name="torch", state="bad", found="2.8.1", advice="install another")


@pytest.mark.parametrize(
    ("checks", "state", "line"),
    [
        ([], "good", "Ready: 0 checks, 0 notices, nothing bad."),
        ([GOOD], "good", "Ready: 1 check, 0 notices, nothing bad."),
        ([NOTICE, GOOD], "notice", "Ready, and could be better: 2 checks, 1 notice, nothing bad."),
        (
            [GOOD, BAD, NOTICE],
            "bad",
            "Not ready: torch must be mended first (3 checks, 1 notice, 1 bad).",
        ),
    ],
)
def test_the_verdict_is_that_of_the_worst_row(checks, state, line):
    assert worst(checks) == state
    assert verdict(checks) == line


def test_one_row_or_several_or_none():
    assert examine("disk", lambda: GOOD) == (GOOD,)
    assert examine("all", lambda: [GOOD, BAD]) == (GOOD, BAD)
    assert examine("all", lambda: ()) == ()


@pytest.mark.parametrize(
    "error",
    [
        OSError(13, "Permission denied"),
        DeviceError("no such device"),
        RuntimeError("Inner error\n[ERR99999]"),
        KeyError("version"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        subprocess.TimeoutExpired("npu-smi", 20),
        ModuleNotFoundError("No module named 'te'"),
    ],
)
def test_a_look_that_fails_is_a_row_with_its_reason(error):
    def look():
        raise error

    (check,) = examine("npu-smi", look)
    assert (check.name, check.state) == ("npu-smi", "notice")
    assert type(error).__name__ in check.found
    assert "\n" not in check.found
    assert check.advice
    assert examine("npu-smi", look, state="bad")[0].state == "bad"


def test_a_mistake_of_ours_and_an_interrupt_stay_what_they_are():
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        examine("burn-in", stop)


def test_a_long_message_is_cut_and_an_empty_one_said():
    assert len(fault("x", RuntimeError("word " * 1000)).found) < 400
    assert "without a message" in fault("x", RuntimeError()).found


def test_a_report_survives_json():
    measured = Check(name="link", found="fast", figures={"bytes_per_second": 1e9}, is_aside=True)
    report = json.loads(json.dumps(as_report([GOOD, BAD, measured])))
    assert set(report) == {"verdict", "summary", "checks"}
    assert report["verdict"] == "bad"
    assert report["summary"].startswith("Not ready: torch")
    fields = {"name", "state", "found", "advice", "figures", "is_aside"}
    assert all(set(row) == fields for row in report["checks"])
    assert read_checks(report) == (GOOD, BAD, measured)


def test_what_is_no_report_is_refused():
    with pytest.raises(LookupError):
        read_checks({})
    with pytest.raises(TypeError):
        read_checks({"checks": [{"name": "x", "found": "y", "colour": "red"}]})


def test_figures_are_numbers_json_knows():
    row = as_report([Check(name="x", found="y", figures={"a": 1.5})])["checks"][0]
    assert all(math.isfinite(value) for value in row["figures"].values())
