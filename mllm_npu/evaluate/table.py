"""Show the figures of a report as a table in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from mllm_npu.evaluate.figure import format_value

_MARKS = {True: "[green]met[/]", False: "[bold red]missed[/]", None: ""}


def figures_table(report: Mapping[str, Any]) -> Table:
    """One row per figure: value, standard error, interval, number of examples, target.

    Args:
        report: as ``suite.evaluate_run`` gives it.
    """
    heads = ("figure", "value", "±", "95 %", "n", "target", "")
    table = Table(*heads, box=None, pad_edge=False)
    for figure in report["details"]:
        error, interval = figure["standard_error"], figure["interval"]
        table.add_row(
            "  " * figure["level"] + figure["name"],
            format_value(figure["value"]),
            "" if error is None else format_value(error),
            "" if interval is None else "–".join(format_value(end) for end in interval),
            "" if figure["num"] is None else str(figure["num"]),
            figure["target"],
            _MARKS[figure["met"]],
        )
    return table
