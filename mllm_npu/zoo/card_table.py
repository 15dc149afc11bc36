"""Show cards in the terminal: all of them as a table, one of them in full."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table

from mllm_npu.shipped import shipped_names
from mllm_npu.zoo.card import Card, Measured

_BYTES = (("float32", 4), ("bfloat16", 2), ("int8", 1))
_UNKNOWN = "not known"


def cards_table(cards: Sequence[Card]) -> Table:
    """One row per card: name, parameters, size of its files, licence, where it is."""
    table = Table(box=None, pad_edge=False)
    # A name is what is typed next, so it is never cut; the licence gives way first.
    longest = max((len(card.name) for card in cards), default=0)
    for head, width in (("name", longest), ("parameters", 10), ("files", 9)):
        table.add_column(head, no_wrap=True, min_width=width)
    table.add_column("licence", no_wrap=True, overflow="ellipsis")
    table.add_column("from", no_wrap=True, overflow="ellipsis", min_width=14)
    for card in cards:
        size = card.gigabytes
        table.add_row(
            card.name,
            _UNKNOWN if card.parameters is None else short_number(card.parameters),
            _UNKNOWN if size is None else short_bytes(size * 1e9),
            card.licence.weights,
            "this package" if card.name in shipped_names() else card.source.hub or _UNKNOWN,
        )
    return table


def card_lines(card: Card) -> Iterator[str]:
    """All that a card says, line by line, with the commands to type."""
    yield f"{card.title} ({card.name})"
    yield card.summary
    yield from _section("source", _facts(card.source))
    yield from _section("licence", _facts(card.licence))
    yield from _section("size", list(_sizes(card)))
    if card.config is not None:
        yield from _section("configuration", list(_config(card)))
    yield from _section("commands", list(command_lines(card)))
    for name in ("parity", "quality", "memory", "speed"):
        yield from _section(name, [_figure(entry) for entry in getattr(card, name)])
    yield from _section("notes", card.notes)
    yield from _section("documentation", card.docs)
    yield from _section("files", [_file(entry) for entry in card.files])


def command_lines(card: Card) -> Iterator[str]:
    """What to type, with what it does: get, check, import, ask, train."""
    for what, commands in (
        ("get", card.commands.get),
        ("check", (_check(card),)),
        ("import", card.commands.load),
        ("ask", card.commands.ask),
        ("train", card.commands.train),
    ):
        yield from (f"{what:<7} {command}" for command in commands)


def card_json(card: Card) -> dict[str, Any]:
    """A card as plain values."""
    return {**dataclasses.asdict(card), "gigabytes": card.gigabytes}


def short_number(number: float) -> str:
    """1132745 -> "1.13 M"."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:g}"


def short_bytes(number: float) -> str:
    """4629255 -> "4.63 MB", of 10^6 bytes."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:g} B"


def _check(card: Card) -> str:
    if card.name in shipped_names():
        return f"mllm-npu zoo check {card.name}"
    return f"mllm-npu zoo check {card.name} {_folder(card)}"


def _folder(card: Card) -> str:
    """Where the command that gets a model puts it."""
    words = card.commands.get[0].split() if card.commands.get else []
    return words[words.index("--local-dir") + 1] if "--local-dir" in words else "pretrained"


def _section(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield ""
        yield title
        yield from (f"  {line}" for line in lines)


def _facts(node: Any) -> list[str]:
    values = dataclasses.asdict(node).items()
    return [f"{key.replace('_', ' ')}: {value}" for key, value in values if value is not None]


def _sizes(card: Card) -> Iterator[str]:
    if card.parameters is not None:
        yield f"{card.parameters} parameters ({short_number(card.parameters)})"
        weights = [f"{short_bytes(card.parameters * size)} in {name}" for name, size in _BYTES]
        yield f"weights alone: {', '.join(weights)}"
    if card.gigabytes is not None:
        yield f"files: {short_bytes(card.gigabytes * 1e9)}"


def _config(card: Card) -> Iterator[str]:
    assert card.config is not None
    if card.config.overrides:
        yield f"{card.config.root}: {' '.join(card.config.overrides)}"
    if card.config.experiments:
        yield f"experiments: {', '.join(card.config.experiments)}"


def _figure(entry: Measured) -> str:
    value = "not measured" if entry.value is None else f"{entry.value}"
    return f"{entry.what}: {value} ({entry.by})"


def _file(entry: Any) -> str:
    size = short_bytes(entry.size) if entry.size is not None else None
    if size is None:
        size = f"about {entry.gigabytes} GB" if entry.gigabytes is not None else "size not known"
    return f"{entry.path}  {size}  {entry.sha256 or 'hash not known'}"
