"""Palette: one colour for every data set, the same in page and terminal."""

from __future__ import annotations

from collections.abc import Sequence

_COLOURS = (
    "#4c8dff",
    "#f0932b",
    "#1fae7a",
    "#e5566d",
    "#9b6bf2",
    "#17a9b8",
    "#d46cc0",
    "#8fae2b",
    "#b5804a",
    "#7c8aa5",
)


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """Colours by name, as ``#rrggbb``; they repeat after ten."""
    return {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(names)}
