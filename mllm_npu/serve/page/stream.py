"""The events of a streamed chat completion, read from its lines."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from mllm_npu.serve.page.conversation import Box
from mllm_npu.serve.page.trouble import AskError, Trouble, of_stream, parse

_IN_FRONT = re.compile(r": *(\d{1,9}) in front")
_DATA = "data:"
_END = "[DONE]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """The reply has not begun.

    Args:
        ahead: requests before it.
    """

    ahead: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Says:
    """A piece of text.

    Args:
        text: what is added.
        choice: number of the reply among several.
    """

    text: str
    choice: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """A picture.

    Args:
        url: a data URL.
        offset: characters of text before it.
        choice: number of the reply among several.
    """

    url: str
    offset: int = 0
    choice: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """Places in a picture.

    Args:
        boxes: at least one.
        choice: number of the reply among several.
    """

    boxes: tuple[Box, ...]
    choice: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """A reply is complete.

    Args:
        reason: in the API's words.
        choice: number of the reply among several.
    """

    reason: str
    choice: int = 0


Event = Waits | Says | Draws | Points | Ends


async def read_events(lines: AsyncIterator[str]) -> AsyncIterator[Event]:
    """What a stream of server-sent events tells, as it comes.

    Raises:
        AskError: the stream tells a failure, or ends before it is complete.
    """
    async for line in lines:
        if waits := _IN_FRONT.match(line):
            yield Waits(ahead=int(waits[1]))
        if not line.startswith(_DATA):
            continue
        told = line.removeprefix(_DATA).strip()
        if told == _END:
            return
        piece = parse(told)
        if "error" in piece:
            raise of_stream(piece)
        for event in _events_of(piece):
            yield event
    raise AskError(Trouble.CUT)


def _events_of(piece: dict[str, Any]) -> Iterator[Event]:
    for entry in _objects(piece.get("choices")):
        number = entry.get("index")
        choice = number if isinstance(number, int) else 0
        delta = entry.get("delta")
        delta = delta if isinstance(delta, dict) else {}
        if isinstance(text := delta.get("content"), str) and text:
            yield Says(text=text, choice=choice)
        for image in _objects(delta.get("images")):
            yield from _drawn(image, choice)
        if boxes := tuple(_boxes(delta.get("boxes"))):
            yield Points(boxes=boxes, choice=choice)
        if isinstance(reason := entry.get("finish_reason"), str):
            yield Ends(reason=reason, choice=choice)


def _drawn(image: dict[str, Any], choice: int) -> Iterator[Draws]:
    place, offset = image.get("image_url"), image.get("offset")
    url = place.get("url") if isinstance(place, dict) else place
    if isinstance(url, str):
        yield Draws(url=url, offset=offset if isinstance(offset, int) else 0, choice=choice)


def _boxes(told: Any) -> Iterator[Box]:
    for entry in _objects(told):
        edges = [entry.get(name) for name in ("x0", "y0", "x1", "y1")]
        numbers = [float(edge) for edge in edges if isinstance(edge, int | float)]
        if len(numbers) == len(edges) and all(math.isfinite(edge) for edge in numbers):
            x0, y0, x1, y1 = (min(1.0, max(0.0, edge)) for edge in numbers)
            label = str(entry.get("label") or "")
            yield Box(x0=min(x0, x1), y0=min(y0, y1), x1=max(x0, x1), y1=max(y0, y1), label=label)


def _objects(value: Any) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
