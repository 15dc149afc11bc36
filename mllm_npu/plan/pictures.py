"""Lay out the pictures of a plan's page as plain shapes: bars, a time line, curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mllm_npu.plan.goodput import Goodput
from mllm_npu.plan.step_time import StepTime

COLOURS = (
    "#3b82f6", "#f59e0b", "#10b981", "#ef4444", "#8b5cf6", "#14b8a6", "#ec4899", "#84cc16",
)  # fmt: skip
WIDTH, HEIGHT = 1000, 300
_LEFT, _BOTTOM, _TOP, _ROWS = 60, 40, 15, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A piece of a bar.

    Args:
        name: what it stands for.
        size: in the bar's unit.
        left: where it begins, percent of the bar.
        width: percent of the bar.
        colour: of its face.
    """

    name: str
    size: float
    left: float
    width: float
    colour: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A line through points of a picture.

    Args:
        name: what it shows.
        points: for an SVG polyline.
        best: its highest point, x and y.
        colour: of the line.
    """

    name: str
    points: str
    best: tuple[float, float]
    colour: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A mark on an axis.

    Args:
        place: along the axis.
        text: beside it.
    """

    place: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePicture:
    """Curves with their axes."""

    curves: Sequence[Curve]
    columns: Sequence[Tick]
    rows: Sequence[Tick]


def stack(sizes: Mapping[str, float], whole: float) -> list[Piece]:
    """Pieces of a bar one behind the other, the largest first.

    Args:
        sizes: by name.
        whole: size of the bar; what is larger is drawn to scale of what there is.
    """
    scale = 100 / max(whole, sum(sizes.values()), 1e-12)
    pieces, left = [], 0.0
    ordered = sorted(sizes.items(), key=lambda entry: -entry[1])
    for number, (name, size) in enumerate(ordered):
        if size > 0:
            colour = COLOURS[number % len(COLOURS)]
            width = size * scale
            pieces.append(Piece(name=name, size=size, left=left, width=width, colour=colour))
            left += width
    return pieces


def time_line(step: StepTime) -> tuple[list[Piece], list[Piece]]:
    """A step from left to right: what the device computes, and the exchanges beside it.

    Parts of a phase are drawn one behind the other; exchanges begin with their part, and what is
    waited for stands behind its computation.
    """
    total = sum(one.busy + one.exposed for one in step.segments) or 1.0
    names = list(dict.fromkeys(one.part for one in step.segments))
    busy: list[Piece] = []
    exchanges: list[Piece] = []
    now = 0.0
    for one in step.segments:
        colour = COLOURS[names.index(one.part) % len(COLOURS)]
        name = f"{one.phase}: {one.part}".replace("_", " ")
        beside = min(one.exchange, one.busy + one.exposed)
        for into, size in ((busy, one.busy), (exchanges, beside)):
            if size > 0:
                piece = Piece(
                    name=name,
                    size=size,
                    left=100 * now / total,
                    width=100 * size / total,
                    colour=colour,
                )
                into.append(piece)
        now += one.busy + one.exposed
    return busy, exchanges


def goodput_picture(found: Sequence[Goodput]) -> CurvePicture:
    """Useful share of the time over the seconds between two checkpoints, a curve per run."""
    lowest = math.log10(min(one.intervals[0] for one in found))
    highest = math.log10(max(one.intervals[-1] for one in found))
    span = max(highest - lowest, 1e-9)
    # Most of the axis would be empty: shares are near one another.
    floor = math.floor(20 * min(min(one.goodput) for one in found)) / 20
    floor = max(0.0, min(floor, 0.95))

    def x_of(interval: float) -> float:
        return _LEFT + (WIDTH - _LEFT) * (math.log10(interval) - lowest) / span

    def y_of(share: float) -> float:
        return _TOP + (HEIGHT - _BOTTOM - _TOP) * (1 - share) / (1 - floor)

    curves = [
        Curve(
            name=f"{one.ranks} ranks",
            points=" ".join(
                f"{x_of(interval):.1f},{y_of(share):.1f}"
                for interval, share in zip(one.intervals, one.goodput, strict=True)
            ),
            best=(round(x_of(one.best_interval), 1), round(y_of(one.best_goodput), 1)),
            colour=COLOURS[number % len(COLOURS)],
        )
        for number, one in enumerate(found)
    ]
    marks = ((1, "1 s"), (10, "10 s"), (60, "1 min"), (600, "10 min"), (3600, "1 h"),
             (36000, "10 h"), (86400 * 7, "1 week"))  # fmt: skip
    columns = [
        Tick(place=round(x_of(seconds), 1), text=text)
        for seconds, text in marks
        if lowest <= math.log10(seconds) <= highest
    ]
    shares = [floor + (1 - floor) * part / _ROWS for part in range(_ROWS + 1)]
    rows = [Tick(place=round(y_of(share), 1), text=f"{share:.1%}") for share in shares]
    return CurvePicture(curves=curves, columns=columns, rows=rows)
