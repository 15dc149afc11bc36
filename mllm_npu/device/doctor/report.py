"""The rows of an examination for the eyes: a verdict, then a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from mllm_npu.device.doctor.check import Check, State, verdict, worst

_STYLES: dict[State, str] = {"good": "green", "notice": "yellow", "bad": "bold red"}


def render(checks: Sequence[Check], *, with_asides: bool = False) -> Group:
    """Verdict and table, for a rich console.

    Args:
        checks: all rows.
        with_asides: show those too that do not concern this machine.
    """
    line = Text(verdict(checks), style=_STYLES[worst(checks)])
    shown = [check for check in checks if with_asides or not check.is_aside or is_urgent(check)]
    hidden = len(checks) - len(shown)
    parts: list[Text | Table] = [line, Text(), checks_table(shown)]
    if hidden:
        parts += [
            Text(),
            Text(f"{hidden} more rows do not concern this machine: --all shows them."),
        ]
    return Group(*parts)


def is_urgent(check: Check) -> bool:
    """Whether a row asks for something."""
    return check.state != "good"


def checks_table(checks: Sequence[Check]) -> Table:
    """One row per check; advice stands below what was found."""
    table = Table("state", "check", box=None, pad_edge=False)
    table.add_column("found", overflow="fold")  # a command is never cut short
    for check in checks:
        found = escape(check.found)
        if check.advice:
            found += f"\n[bold]->[/] {escape(check.advice)}"
        table.add_row(f"[{_STYLES[check.state]}]{check.state}[/]", escape(check.name), found)
    return table
