"""One measured number of a report, with its uncertainty and its target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mllm_npu.evaluate.runner import TaskResult, standard_error


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a figure should reach.

    Args:
        limit: the number.
        side: "least" where more is better, "most" where less is.
    """

    limit: float
    side: Literal["least", "most"]

    def is_met(self, value: float) -> bool:
        """Whether a value reaches it."""
        return value >= self.limit if self.side == "least" else value <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.side == 'least' else '≤'} {format_value(self.limit)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A measured number.

    Args:
        name: key in report.json.
        title: what it is, in words.
        value: the number.
        num: examples behind it, where it is a mean.
        standard_error: of the mean over examples.
        target: what it should reach, if there is one.
        citation: where task and data come from.
    """

    name: str
    title: str
    value: float
    num: int | None = None
    standard_error: float | None = None
    target: Target | None = None
    citation: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values for report.json and the templates."""
        return {
            "name": self.name,
            "title": self.title,
            "value": self.value,
            "num": self.num,
            "standard_error": self.standard_error,
            "target": "" if self.target is None else str(self.target),
            "met": None if self.target is None else self.target.is_met(self.value),
            "citation": self.citation,
        }


def mean_figure(
    *,
    name: str,
    title: str,
    values: Sequence[float],
    targets: Mapping[str, Target] | None = None,
    citation: str = "",
) -> Figure:
    """The mean of values as a figure, with its standard error; at least one value."""
    return Figure(
        name=name,
        title=title,
        value=round(sum(values) / len(values), 5),
        num=len(values),
        standard_error=round(standard_error(values), 5),
        target=(targets or {}).get(name),
        citation=citation,
    )


def figure_of(result: TaskResult, targets: Mapping[str, Target]) -> Figure:
    """The mean score of a task as a figure."""
    return mean_figure(
        name=result.task.name,
        title=result.task.title,
        values=[record.score for record in result.records],
        targets=targets,
        citation=result.task.citation,
    )


def format_value(value: float) -> str:
    """A number as people read it: 0.9917, 166, 3."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.4f}".rstrip("0") if abs(value) < 10 else f"{value:.1f}"
