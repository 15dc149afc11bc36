"""Figures of a report as a tree: a benchmark, its categories, what is in those."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, kw_only=True)
class FigureNode:
    """A figure with those below it.

    Args:
        figure: as it stands in report.json.
        label: its title in words, without what the one above it says already.
        children: figures of the next level.
    """

    figure: Mapping[str, Any]
    label: str
    children: list[FigureNode] = field(default_factory=list)

    def walk(self) -> Iterator[FigureNode]:
        """This one and all below it, in order."""
        yield self
        for child in self.children:
            yield from child.walk()

    @property
    def is_share(self) -> bool:
        """Whether all of its figures are from 0 to 1, so that a bar can show them."""
        return all(0 <= node.figure["value"] <= 1 for node in self.walk())


def figure_tree(details: Sequence[Mapping[str, Any]]) -> list[FigureNode]:
    """The figures of level 0, each with those that follow it on higher levels.

    Args:
        details: of report.json.
    """
    roots: list[FigureNode] = []
    path: list[FigureNode] = []
    for figure in details:
        while path and path[-1].figure["level"] >= figure["level"]:
            path.pop()
        above = path[-1] if path else None
        prefix = "" if above is None else f"{above.figure['title']}/"
        label = figure["title"].removeprefix(prefix).replace("_", " ")
        node = FigureNode(figure=figure, label=label)
        (roots if above is None else above.children).append(node)
        path.append(node)
    return roots
