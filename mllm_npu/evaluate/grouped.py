"""Averages of a benchmark by subject, by category and over all, as the benchmark defines them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from mllm_npu.evaluate.figure import Figure, mean_figure, statistic_figure
from mllm_npu.evaluate.task import Record, count_unread

Average = Literal["micro", "macro"]
"""Over all questions alike, or over the averages of the groups alike."""


def grouped_figures(
    records: Sequence[Record],
    *,
    name: str,
    title: str,
    citation: str,
    average: Average = "micro",
    inner: Average = "micro",
) -> list[Figure]:
    """The number of a benchmark, then of each of its groups, by `Example.groups`.

    Args:
        records: at least one.
        name: of the main figure; a group's is ``name/group``.
        title: of the main figure.
        citation: of the main figure.
        average: how the main figure is made from the groups of the last level (subjects).
        inner: how figures of groups of other levels are made from those.
    """
    figures = [_figure(records, name, title, citation, average, level=0)]
    depth = max(len(record.example.groups) for record in records)
    figures += _figures_below(records, name, 0, depth, inner)
    return figures


def by_group(records: Sequence[Record], level: int) -> dict[str, list[Record]]:
    """Records by their group of a level, in order of first appearance.

    Args:
        records: those without a group of that level are left out.
        level: 0 is the widest, -1 the narrowest.
    """
    found: dict[str, list[Record]] = {}
    for record in records:
        groups = record.example.groups
        if -len(groups) <= level < len(groups):
            found.setdefault(groups[level], []).append(record)
    return found


def _figures_below(
    records: Sequence[Record], name: str, level: int, depth: int, inner: Average
) -> list[Figure]:
    if level >= depth:
        return []
    figures: list[Figure] = []
    for group, own in sorted(by_group(records, level).items()):
        average: Average = "micro" if level == depth - 1 else inner
        figures.append(_figure(own, f"{name}/{group}", group, "", average, level=level + 1))
        figures += _figures_below(own, name, level + 1, depth, inner)
    return figures


def _figure(
    records: Sequence[Record], name: str, title: str, citation: str, average: Average, *, level: int
) -> Figure:
    unread = count_unread(records)
    if average == "micro":
        return mean_figure(
            name=name,
            title=title,
            values=[record.score for record in records],
            citation=citation,
            num_unread=unread,
            level=level,
        )
    groups: dict[tuple[str, ...], list[float]] = {}
    for record in records:
        groups.setdefault(record.example.groups, []).append(record.score)
    return statistic_figure(
        name=name,
        title=title,
        units=list(groups.values()),
        statistic=lambda units: sum(sum(unit) / len(unit) for unit in units) / len(units),
        num=len(records),
        citation=citation,
        num_unread=unread,
        level=level,
    )
