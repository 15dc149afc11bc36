"""What people see: the verdict first, then a row per check with what to do."""

import io

from rich.console import Console

from mllm_npu.device.doctor.check import Check
from mllm_npu.device.doctor.report import render

DISK = Check(name="disk", found="77 GiB free")
TORCH = Check(name="torch", state="bad", found="2.8.1", advice="pip install torch[cpu]==2.13.0")
ASIDE = Check(name="env TASK_QUEUE_ENABLE", found="not set, so 1", is_aside=True)


def shown(checks, **options) -> list[str]:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(render(checks, **options))
    return console.export_text().splitlines()


def test_the_verdict_comes_first_and_every_row_has_its_advice_below():
    lines = shown([DISK, TORCH])
    assert lines[0] == "Not ready: torch must be mended first (2 checks, 0 notices, 1 bad)."
    assert lines[2].split() == ["state", "check", "found"]
    assert lines[3].split() == ["good", "disk", "77", "GiB", "free"]
    assert lines[4].split() == ["bad", "torch", "2.8.1"]
    assert lines[5].split() == ["->", "pip", "install", "torch[cpu]==2.13.0"]
    assert len(lines) == 6


def test_what_does_not_concern_the_machine_is_counted_and_shown_on_request():
    lines = shown([DISK, ASIDE])
    assert not any("TASK_QUEUE_ENABLE" in line for line in lines)
    assert lines[-1] == "1 more rows do not concern this machine: --all shows them."
    lines = shown([DISK, ASIDE], with_asides=True)
    assert any("env TASK_QUEUE_ENABLE" in line for line in lines)
    assert not any("--all" in line for line in lines)


def test_an_aside_that_asks_for_something_is_shown():
    urgent = Check(name="env x", state="notice", found="y", advice="z", is_aside=True)
    assert any("env x" in line for line in shown([urgent]))


def test_a_long_command_is_never_cut_short():
    command = "export PYTORCH_NPU_ALLOC_CONF=expandable_segments:True," + "x" * 80
    lines = shown([Check(name="env", state="notice", found="y", advice=command)])
    told = "".join("".join(line.split()) for line in lines)
    assert "".join(command.split()) in told


def test_square_brackets_of_a_message_are_not_markup():
    lines = shown([Check(name="links", state="bad", found="[bold]no[/]", advice="[see]")])
    assert any("[bold]no[/]" in line for line in lines)
    assert any("-> [see]" in line for line in lines)
