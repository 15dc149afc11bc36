"""The table npu-smi prints, and a tool that does not come back."""

import subprocess

import pytest

from mllm_npu.device.doctor import npu_smi
from mllm_npu.device.doctor.npu_smi import ask_npu_smi, parse_npus, tool_version

RULE = "+---------------------------+---------------+---------------------------------+\n"
TABLE = f"""{RULE}| npu-smi 25.3.rc1                 Version: 25.3.rc1                           |
{RULE}| NPU   Name                | Health        | Power(W)    Temp(C)   Hugepages-Usage |
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage  HBM-Usage(MB) |
{RULE}| 0     910B3               | OK            | 98.2        37        0    / 0        |
| 0                         | 0000:C1:00.0  | 0           0    / 0  3440 / 65536    |
{RULE}| 1     910B3               | Alarm         | 100.8       39        0    / 0        |
| 0                         | 0000:C2:00.0  | 0           0    / 0  60439 / 65536   |
{RULE}| NPU     Chip              | Process id    | Process name    | Process memory(MB)  |
{RULE}| 1       0                 | 3104283       | python          | 57000               |
"""
A3 = (
    "| 0     Ascend910           | OK            | 168.1       35         0    / 0             |\n"
    "| 0     0                   | 0000:9D:00.0  | 0           0    / 0   3154 / 65536         |\n"
    "+---------------------------------------------------------------------------------------+\n"
    "| 0     Ascend910           | OK            | -           36         0    / 0             |\n"
    "| 1     1                   | 0000:9F:00.0  | 0           0    / 0   2903 / 65536         |\n"
)


def test_every_chip_is_read_with_health_and_memory():
    first, second = parse_npus(TABLE)
    assert (first.number, first.name, first.health) == (0, "910B3", "OK")
    assert first.used_gib == pytest.approx(3440 / 1024)
    assert first.total_gib == 64
    assert (second.number, second.health) == (1, "Alarm")
    assert second.used_gib == pytest.approx(60439 / 1024)
    assert tool_version(TABLE) == "25.3.rc1"


def test_both_chips_of_an_npu_are_read():
    assert [npu.used_gib * 1024 for npu in parse_npus(A3)] == [3154, 2903]


@pytest.mark.parametrize("text", ["", "dcmi module initialize failed. ret is -8005\n", RULE])
def test_what_is_no_table_has_no_chips(text):
    assert parse_npus(text) == ()
    assert tool_version(text) == ""


def script(tmp_path, text: str) -> tuple[str]:
    path = tmp_path / "npu-smi"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return (str(path),)


def test_the_tool_is_asked(tmp_path):
    assert ask_npu_smi(script(tmp_path, "echo hello")) == "hello\n"
    assert ask_npu_smi(("no-such-npu-smi",)) is None


def test_a_tool_that_fails_says_why(tmp_path):
    with pytest.raises(subprocess.SubprocessError, match="code 3: dcmi failed"):
        ask_npu_smi(script(tmp_path, "echo dcmi failed >&2; exit 3"))


def test_a_tool_that_hangs_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(npu_smi, "_SECONDS", 0.2)
    with pytest.raises(subprocess.TimeoutExpired):
        ask_npu_smi(script(tmp_path, "exec sleep 30"))
