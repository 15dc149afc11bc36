"""Show the figures of a report in the terminal: a table, and what to know about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from mllm_npu.evaluate.figure import format_value

MOST_ROWS = 40
"""With more figures the table ends at categories."""

_MARKS = {True: "[green]met[/]", False: "[bold red]missed[/]", None: ""}
_COUNTS = (
    ("num_unread", "replies have no form of an answer and count as wrong"),
    ("num_refused", "questions were refused and count as wrong"),
    ("num_shots_dropped", "solved examples were left out of questions too long with them"),
)


def figures_table(report: Mapping[str, Any]) -> Table:
    """One row per figure: value, standard error, interval, number of examples, target.

    Args:
        report: content of report.json.
    """
    heads = ("figure", "value", "±", "95 %", "n", "target", "")
    table = Table(*heads, box=None, pad_edge=False)
    for figure in _shown(report):
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


def report_notes(report: Mapping[str, Any]) -> list[str]:
    """Lines to stand under the table: what it leaves out, and what could not be asked or read.

    Args:
        report: content of report.json.
    """
    notes = []
    hidden = len(report["details"]) - len(_shown(report))
    if hidden:
        notes.append(f"{hidden} more figures, below categories, are in the report")
    for task in report.get("tasks", ()):
        notes += [f"{task['name']}: {task[key]} {words}" for key, words in _COUNTS if task[key]]
        if task["num_refused"]:
            notes.append(f"{task['name']}: the first refusal: {task['first_refusal']}")
    return notes


def unasked_tasks(report: Mapping[str, Any]) -> list[str]:
    """Names of tasks of which every question was refused.

    Args:
        report: content of report.json.
    """
    tasks = report.get("tasks", ())
    return [task["name"] for task in tasks if task["num_refused"] == task["num"]]


def _shown(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    details = list(report["details"])
    if len(details) <= MOST_ROWS:
        return details
    return [figure for figure in details if figure["level"] <= 1]
