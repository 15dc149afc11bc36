"""Show a comparison of two evaluations in the terminal."""

from __future__ import annotations

from rich.table import Table

from mllm_npu.evaluate.compare import Comparison, TaskComparison, describe_counts
from mllm_npu.evaluate.figure import format_value


def comparison_table(comparison: Comparison) -> Table:
    """One row per task: both values, their difference, how sure it is, how many rose and fell.

    Args:
        comparison: of two evaluations.
    """
    table = Table(box=None, pad_edge=False)
    for head in ("task", "n", "A", "B", "B − A", "95 %", "p", "+, −"):
        # In a narrow terminal the ends of the interval stand below each other.
        is_interval = head == "95 %"
        table.add_column(head, no_wrap=not is_interval, min_width=8 if is_interval else None)
    for task in comparison.tasks:
        found = task.difference
        table.add_row(
            task.task,
            str(len(task.pairs)),
            format_value(task.value_a),
            format_value(task.value_b),
            format_signed(found.mean),
            ", ".join(format_signed(end) for end in found.interval),
            format_p(found.p_value),
            f"{found.num_higher}, {found.num_lower}",
            style=_style(task),
        )
    return table


def comparison_notes(comparison: Comparison) -> list[str]:
    """Lines to stand beside the table: who A and B are, and what was left out."""
    notes = [f"{letter}: {name}" for letter, name in zip("AB", comparison.names(), strict=True)]
    tests: dict[str, list[str]] = {}
    for task in comparison.tasks:
        tests.setdefault(task.difference.test, []).append(task.task)
    notes += [f"p by {test}: {', '.join(names)}" for test, names in tests.items()]
    for task in comparison.tasks:
        notes += [f"{task.task}: {said}" for said in describe_counts(task.count())]
    for letter, names in (("A", comparison.only_a), ("B", comparison.only_b)):
        if names:
            notes.append(f"tasks in {letter} only, left out: {', '.join(names)}")
    return notes


def format_signed(value: float) -> str:
    """A difference with its sign."""
    return f"{'−' if value < 0 else '+'}{format_value(abs(value))}" if value else "0"


def format_p(p_value: float) -> str:
    """A p-value as people read it."""
    return "< 0.0001" if p_value < 0.0001 else f"{p_value:.4f}".rstrip("0").rstrip(".")


def _style(task: TaskComparison) -> str:
    if not task.differs:
        return ""
    return "green" if task.difference.mean > 0 else "red"
