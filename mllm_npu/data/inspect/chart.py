"""Chart: histograms and a map of picture sizes as plain geometry that the page's SVG draws."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mllm_npu.data.inspect.distribution import Distribution
from mllm_npu.data.inspect.source_stats import Size

WIDTH = 400.0
"""Of every chart, in its own units; the page stretches it."""
_ROW, _LABEL, _AXIS = 46.0, 19.0, 20.0
_MOST_BINS = 40
_MOST_DOTS = 400
_SMALLEST_DOT, _LARGEST_DOT = 2.2, 13.0
_MARGIN = 34.0
_ROOM = 0.6
"""Doublings of pixels around the sizes of pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A bin of a histogram; ``title`` is shown when pointed at."""

    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A histogram of one colour; ``y`` is its base line."""

    label: str
    colour: str
    y: float
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A number on an axis."""

    at: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Histograms one above the other over one axis; each is as high as its own highest bin."""

    height: float
    rows: tuple[Row, ...]
    ticks: tuple[Tick, ...]
    limit: Tick | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """A picture size; the area of the dot tells how many pictures have it."""

    x: float
    y: float
    radius: float
    colour: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeMap:
    """Widths across and heights up, both by doublings; ``tile_`` is where a tile's edge lies."""

    height: float
    dots: tuple[Dot, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    tile_across: Tick | None
    tile_up: Tick | None


def draw_histogram(
    rows: Sequence[tuple[str, str, Distribution]], *, low: int | None = None, limit: int = 0
) -> Histogram | None:
    """Histograms of several distributions; None where nothing was counted.

    Args:
        rows: name, colour and numbers of each.
        low: where the axis begins; None for the smallest number.
        limit: a number to mark, 0 for none.
    """
    rows = [row for row in rows if row[2].num]
    if not rows:
        return None
    highest = max(limit, *(numbers.max for _, _, numbers in rows))
    lowest = min(min(numbers.counts) for _, _, numbers in rows) if low is None else low
    step = _nice_step((highest - lowest + 1) / _MOST_BINS)
    # A bin ends with the limit, so that its mark parts bins and not the numbers of one.
    start = limit + 1 - -(-(limit + 1 - lowest) // step) * step if limit else lowest // step * step
    num_bins = (highest - start) // step + 1
    scale = WIDTH / num_bins
    drawn = [
        _draw_row(label, colour, numbers, number, start=start, step=step, scale=scale)
        for number, (label, colour, numbers) in enumerate(rows)
    ]
    tick_step = _nice_step(num_bins * step / 5)
    first = -(-start // tick_step) * tick_step
    ticks = [
        Tick(at=(value - start) / step * scale, label=_number(value))
        for value in range(first, start + num_bins * step, tick_step)
    ]
    mark = Tick(at=(limit + 1 - start) / step * scale, label=_number(limit)) if limit else None
    return Histogram(
        height=len(rows) * (_LABEL + _ROW) + _AXIS,
        rows=tuple(drawn),
        ticks=tuple(ticks),
        limit=mark,
    )


def _draw_row(
    label: str,
    colour: str,
    numbers: Distribution,
    row: int,
    *,
    start: int,
    step: int,
    scale: float,
) -> Row:
    bins: Counter[int] = Counter()
    for value, count in numbers.counts.items():
        bins[(value - start) // step] += count
    base = (row + 1) * (_LABEL + _ROW)
    highest = max(bins.values())
    bars = []
    for place, count in sorted(bins.items()):
        begin = start + place * step
        span = f"{begin}" if step == 1 else f"{begin} to {begin + step - 1}"
        height = max(1.0, count / highest * _ROW)
        bars.append(
            Bar(
                x=place * scale,
                y=base - height,
                width=max(scale - 1, 0.8),
                height=height,
                title=f"{label}: {span}, {count} times",
            )
        )
    return Row(label=label, colour=colour, y=base, bars=tuple(bars))


def draw_sizes(
    sizes: Mapping[str, Mapping[Size, int]], colours: Mapping[str, str], *, tile_size: int
) -> SizeMap | None:
    """Picture sizes of data sets; None where there are no pictures.

    Args:
        sizes: for each data set how often each size was seen.
        colours: of the data sets.
        tile_size: pixels of a tile's edge.
    """
    points = [(name, size, count) for name, seen in sizes.items() for size, count in seen.items()]
    if not points:
        return None
    if len(points) > _MOST_DOTS:
        points = _merge(points)
    left, right = _span([width for _, (width, _), _ in points])
    bottom, top = _span([down for _, (_, down), _ in points])
    scale = (WIDTH - 2 * _MARGIN) / max(right - left, top - bottom)
    height = (top - bottom) * scale + _MARGIN
    most = max(count for _, _, count in points)

    def across(pixels: float) -> float:
        return _MARGIN + (math.log2(pixels) - left) * scale

    def up(pixels: float) -> float:
        return height - _MARGIN - (math.log2(pixels) - bottom) * scale

    span = _LARGEST_DOT - _SMALLEST_DOT
    dots = [
        Dot(
            x=across(width),
            y=up(down),
            radius=_SMALLEST_DOT + span * math.sqrt(count / most),
            colour=colours[name],
            title=f"{name}: {width}x{down}, {count} times",
        )
        for name, (width, down), count in sorted(points, key=lambda point: -point[2])
    ]
    label, edge = f"tile {tile_size}", math.log2(tile_size)
    return SizeMap(
        height=height,
        dots=tuple(dots),
        across=tuple(Tick(at=across(power), label=str(power)) for power in _powers(left, right)),
        up=tuple(Tick(at=up(power), label=str(power)) for power in _powers(bottom, top)),
        tile_across=Tick(at=across(tile_size), label=label) if left <= edge <= right else None,
        tile_up=Tick(at=up(tile_size), label=label) if bottom <= edge <= top else None,
    )


def _span(edges: Sequence[int]) -> tuple[float, float]:
    """Doublings from the smallest to the largest of some pixels, with room around them."""
    return math.log2(min(edges)) - _ROOM, math.log2(max(edges)) + _ROOM


def _powers(low: float, high: float) -> list[int]:
    return [2**power for power in range(math.ceil(low), math.floor(high) + 1)]


def _merge(points: Sequence[tuple[str, Size, int]]) -> list[tuple[str, Size, int]]:
    """Sizes rounded to four to a doubling, so that many pictures stay few dots."""
    merged: Counter[tuple[str, Size]] = Counter()
    for name, (width, height), count in points:
        merged[name, (_round(width), _round(height))] += count
    return [(name, size, count) for (name, size), count in merged.items()]


def _round(pixels: int) -> int:
    return round(2 ** (round(4 * math.log2(pixels)) / 4))


def _nice_step(least: float) -> int:
    """The smallest of 1, 2, 5, 10, 20, ... that is at least that much."""
    scale = 1
    while True:
        for step in (1, 2, 5):
            if step * scale >= least:
                return step * scale
        scale *= 10


def _number(value: int) -> str:
    return f"{value / 1000:g}k" if value >= 10_000 and not value % 100 else str(value)
