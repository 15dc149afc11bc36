"""One measured number of a report, with its uncertainty and its target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mllm_npu.evaluate.statistics import T, mean_interval, standard_error, statistic_interval


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
        interval: both ends of its 95 % bootstrap interval.
        num_unread: replies among them that had no form an answer can have; None where every reply
            has one.
        level: 0 for the number of a benchmark, 1 for its categories, 2 for what is in those.
        target: what it should reach, if there is one.
        citation: where task and data come from.
    """

    name: str
    title: str
    value: float
    num: int | None = None
    standard_error: float | None = None
    interval: tuple[float, float] | None = None
    num_unread: int | None = None
    level: int = 0
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
            "interval": self.interval and list(self.interval),
            "num_unread": self.num_unread,
            "level": self.level,
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
    num_unread: int | None = None,
    level: int = 0,
) -> Figure:
    """The mean of values as a figure, with its standard error and interval; at least one value."""
    low, high = mean_interval(values)
    return Figure(
        name=name,
        title=title,
        value=round(sum(values) / len(values), 5),
        num=len(values),
        standard_error=round(standard_error(values), 5),
        interval=(round(low, 5), round(high, 5)),
        num_unread=num_unread,
        level=level,
        target=(targets or {}).get(name),
        citation=citation,
    )


def statistic_figure(
    *,
    name: str,
    title: str,
    units: Sequence[T],
    statistic: Callable[[Sequence[T]], float],
    num: int | None = None,
    citation: str = "",
    num_unread: int | None = None,
    level: int = 0,
) -> Figure:
    """A number that is no mean over examples (a sum over groups, a corpus score) as a figure.

    Args:
        name: see `Figure`.
        title: see `Figure`.
        units: what is independent of each other and is drawn anew for the interval.
        statistic: the number of some units.
        num: examples behind it; the number of units if not given.
        citation: see `Figure`.
        num_unread: see `Figure`.
        level: see `Figure`.
    """
    error, low, high = statistic_interval(units, statistic)
    return Figure(
        name=name,
        title=title,
        value=round(statistic(units), 5),
        num=len(units) if num is None else num,
        standard_error=round(error, 5),
        interval=(round(low, 5), round(high, 5)),
        num_unread=num_unread,
        level=level,
        citation=citation,
    )


def format_value(value: float) -> str:
    """A number as people read it: 0.9917, 166, 3."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.4f}".rstrip("0") if abs(value) < 10 else f"{value:.1f}"
