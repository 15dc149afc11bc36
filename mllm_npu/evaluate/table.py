"""Show the figures of a report as a table in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from mllm_npu.evaluate.figure import format_value

_MARKS = {True: "[green]met[/]", False: "[bold red]missed[/]", None: ""}


def figures_table(report: Mapping[str, Any]) -> Table:
    """One row per figure: value, standard error, number of examples, target.

    Args:
        report: as ``suite.evaluate_run`` gives it.
    """
    table = Table("figure", "value", "±", "n", "target", "", box=None, pad_edge=False)
    for figure in report["details"]:
        error = figure["standard_error"]
        table.add_row(
            figure["name"],
            format_value(figure["value"]),
            "" if error is None else format_value(error),
            "" if figure["num"] is None else str(figure["num"]),
            figure["target"],
            _MARKS[figure["met"]],
        )
    return table
