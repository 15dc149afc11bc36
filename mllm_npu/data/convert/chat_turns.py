"""Chat turns: read the roles and contents of LLaVA, ShareGPT, OpenAI and Cauldron conversations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mllm_npu.errors import SkipSample

PLACEHOLDER = "<image>"

_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "assistant": "assistant",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A place in a turn where a picture stands.

    Args:
        reference: the picture if the turn names it, None for the next of the record's pictures.
    """

    reference: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTurn:
    """What one speaker says.

    Args:
        role: ``system``, ``user`` or ``assistant``.
        parts: texts and pictures in order.
    """

    role: str
    parts: tuple[str | Image, ...]


def read_turns(listed: Any) -> list[ChatTurn]:
    """The turns of a conversation.

    Args:
        listed: objects with ``from`` and ``value``, with ``role`` and ``content``, or with ``user``
            and ``assistant``; a table may also give an object of lists.

    Raises:
        SkipSample: if it is empty or a turn cannot be understood.
    """
    if isinstance(listed, dict):
        listed = _to_objects(listed)
    if not isinstance(listed, list) or not listed:
        raise SkipSample("conversation empty")
    return [turn for entry in listed for turn in _read_entry(entry)]


def _to_objects(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Objects of an object of lists, as tables keep a list of objects."""
    lists = [value for value in columns.values() if isinstance(value, list)]
    if len(lists) != len(columns) or len({len(values) for values in lists}) > 1:
        raise SkipSample("conversation is not a list")
    return [dict(zip(columns, values, strict=True)) for values in zip(*lists, strict=True)]


def _read_entry(entry: Any) -> Iterator[ChatTurn]:
    if not isinstance(entry, dict):
        raise SkipSample("turn is not an object")
    if "user" in entry and "assistant" in entry:
        for role in ("user", "assistant"):
            yield ChatTurn(role=role, parts=_read_content(entry[role]))
        return
    said = entry.get("from", entry.get("role"))
    speaker = _ROLES.get(said.strip().lower()) if isinstance(said, str) else None
    if speaker is None:
        raise SkipSample(f"role not known: {said!r}")
    yield ChatTurn(role=speaker, parts=_read_content(entry.get("value", entry.get("content"))))


def _read_content(content: Any) -> tuple[str | Image, ...]:
    if isinstance(content, str):
        parts = tuple(split_placeholders(content))
    elif isinstance(content, list):
        parts = tuple(part for entry in content for part in _read_part(entry))
    else:
        parts = ()
    if not parts:
        raise SkipSample("turn empty")
    return parts


def _read_part(entry: Any) -> Iterator[str | Image]:
    match entry:
        case str():
            yield from split_placeholders(entry)
        case {"type": "text", "text": str(text)}:
            yield from split_placeholders(text)
        case {"type": "image_url", "image_url": {"url": str(url)} | str(url)}:
            yield Image(reference=url)
        case {"type": "image"}:
            named = (entry.get(name) for name in ("image", "path", "url", "bytes"))
            yield Image(reference=next((value for value in named if value is not None), None))
        case _:
            kind = entry.get("type") if isinstance(entry, dict) else entry
            raise SkipSample(f"content of an unknown type: {str(kind)[:80]}")


def split_placeholders(text: str) -> Iterator[str | Image]:
    """Texts and pictures of a text with ``<image>`` in it; line ends beside one go with it."""
    pieces = text.split(PLACEHOLDER)
    for number, piece in enumerate(pieces):
        if number:
            yield Image()
            piece = piece.lstrip("\r\n")
        if number < len(pieces) - 1:
            piece = piece.rstrip("\r\n")
        if piece.strip():
            yield piece
