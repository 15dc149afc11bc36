"""The error over the depth of a model as plain geometry that the page's SVG draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mllm_npu.compare.comparison import Row

WIDTH, HEIGHT = 1060.0, 250.0
"""Of every chart, in its own units; the page stretches it."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 8.0, 10.0, 26.0
_LOWEST = 1e-9
"""Errors below are drawn there; so is what is bit for bit the same."""
_MOST_PARTS = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """A tensor; ``title`` is shown when pointed at."""

    x: float
    y: float
    is_over: bool
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A place on an axis; ``end`` is where a part of the model stops."""

    at: float
    label: str
    end: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Errors from left to right in the order in which they came, upwards by powers of ten.

    Args:
        dots: one per tensor.
        line: through the dots, as points of an SVG.
        bound: the same of the bounds.
        levels: powers of ten.
        parts: of the model, below the axis.
        first: where the sides part.
    """

    dots: tuple[Dot, ...]
    line: str
    bound: str
    levels: tuple[Mark, ...]
    parts: tuple[Mark, ...]
    first: Mark | None


def draw_errors(
    rows: Sequence[Row], *, describe: Callable[[Row], str], first: Row | None = None
) -> Chart | None:
    """A chart of some tensors; None where there are none.

    Args:
        rows: in the order from left to right.
        describe: says what a row is of.
        first: the one that is marked.
    """
    if not rows:
        return None
    errors = [_height(row.difference.relative) for row in rows]
    bounds = [_height(row.bound) for row in rows]
    low = math.floor(min(*errors, *bounds, -8))
    high = math.ceil(max(*errors, *bounds, -1) + 0.2)
    step = (WIDTH - _LEFT - _RIGHT) / max(1, len(rows) - 1)
    scale = (HEIGHT - _TOP - _BOTTOM) / (high - low)

    def across(place: int) -> float:
        return _LEFT + place * step

    def up(power: float) -> float:
        return HEIGHT - _BOTTOM - (power - low) * scale

    dots = [
        Dot(x=across(place), y=up(error), is_over=row.is_over, title=_title(row, describe))
        for place, (row, error) in enumerate(zip(rows, errors, strict=True))
    ]
    marked = next((n for n, row in enumerate(rows) if row is first), None)
    return Chart(
        dots=tuple(dots),
        line=_points([(dot.x, dot.y) for dot in dots]),
        bound=_points([(across(place), up(power)) for place, power in enumerate(bounds)]),
        levels=tuple(Mark(at=up(power), label=f"1e{power}") for power in range(low, high + 1)),
        parts=tuple(_parts(rows, across)),
        first=None if marked is None else Mark(at=across(marked), label=describe(rows[marked])),
    )


def _parts(rows: Sequence[Row], across: Callable[[int], float]) -> list[Mark]:
    """Where in the row of tensors each part of the model begins and ends."""
    names = [row.event.module.split(".")[0] for row in rows]
    marks: list[Mark] = []
    begin = 0
    for place in range(1, len(names) + 1):
        if place == len(names) or names[place] != names[begin]:
            marks.append(Mark(at=across(begin), label=names[begin], end=across(place - 1)))
            begin = place
    widest = sorted(marks, key=lambda mark: mark.at - mark.end)[:_MOST_PARTS]
    return [mark for mark in marks if mark in widest]


def _title(row: Row, describe: Callable[[Row], str]) -> str:
    gap = row.difference
    told = gap.problem or f"{gap.relative:.1e}, bound {row.bound:.1e}"
    return f"{row.event.module}, {describe(row)}: {told}"


def _height(error: float) -> float:
    return math.log10(min(max(error, _LOWEST), 1e3))


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
