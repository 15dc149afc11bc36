"""A conversation as the page keeps it: questions and replies with their pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture file of the page.

    Args:
        path: what is sent to a model and saved in a download.
        shown: what the browser shows; a small picture is enlarged in it.
        width: pixels of ``path``.
        height: pixels of ``path``.
    """

    path: Path
    shown: Path
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A place in a picture that a reply names.

    Args:
        x0: left edge as a share of the picture's width.
        y0: top edge as a share of its height.
        x1: right edge.
        y1: bottom edge.
        label: what is there.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A picture in a reply.

    Args:
        picture: what was drawn.
        offset: characters of the reply's text that stand before it.
    """

    picture: Picture
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a model has said so far.

    Args:
        text: all of its text.
        drawn: its pictures, in order.
        boxes: places that it names.
        marked: the picture they are in, with the boxes drawn on it.
        ending: how it ended, in the words of the API; "stopped" by the person, "" not yet.
        failure: what went wrong, in the person's language.
    """

    text: str = ""
    drawn: tuple[Drawn, ...] = ()
    boxes: tuple[Box, ...] = ()
    marked: Picture | None = None
    ending: str = ""
    failure: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether nothing was said and nothing drawn."""
        return not self.text and not self.drawn

    def pieces(self) -> Iterator[str | Picture]:
        """Text and pictures in reading order."""
        begin = 0
        for drawn in sorted(self.drawn, key=lambda drawn: drawn.offset):
            if piece := self.text[begin : drawn.offset]:
                yield piece
                begin = drawn.offset
            yield drawn.picture
        if self.text[begin:]:
            yield self.text[begin:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A question and its reply.

    Args:
        text: of the question.
        pictures: given with it.
        reply: None until it begins.
    """

    text: str
    pictures: tuple[Picture, ...] = ()
    reply: Reply | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Exchanges, oldest first.

    Args:
        exchanges: the last one may wait for its reply.
    """

    exchanges: tuple[Exchange, ...] = ()

    @property
    def waits(self) -> bool:
        """Whether the last question has no reply yet."""
        return bool(self.exchanges) and self.exchanges[-1].reply is None

    def ask(self, text: str, pictures: tuple[Picture, ...] = ()) -> Conversation:
        """With one more question."""
        asked = Exchange(text=text, pictures=pictures)
        return Conversation(exchanges=(*self.exchanges, asked))

    def answer(self, reply: Reply | None) -> Conversation:
        """With another reply to the last question; None takes the reply away."""
        *before, last = self.exchanges
        return Conversation(exchanges=(*before, replace(last, reply=reply)))

    def undo(self) -> Conversation:
        """Without the last exchange."""
        return Conversation(exchanges=self.exchanges[:-1])

    def last_picture(self) -> Picture | None:
        """The picture that boxes of a reply to the last question are in: the last one read."""
        for exchange in reversed(self.exchanges):
            if exchange.pictures:
                return exchange.pictures[-1]
        return None

    def to_messages(self, read: Callable[[Picture], str]) -> list[dict[str, Any]]:
        """OpenAI's form. A question without a reply is in it only as the last one.

        Args:
            read: gives a picture as a data URL.
        """
        messages: list[dict[str, Any]] = []
        for number, exchange in enumerate(self.exchanges, start=1):
            reply = exchange.reply
            if (reply is None or reply.is_empty) and number < len(self.exchanges):
                continue
            pictures = [_image_part(picture, read) for picture in exchange.pictures]
            text = [_text_part(exchange.text)] if exchange.text else []
            messages.append({"role": "user", "content": [*pictures, *text]})
            if reply is not None and not reply.is_empty:
                parts = [
                    _text_part(piece) if isinstance(piece, str) else _image_part(piece, read)
                    for piece in reply.pieces()
                ]
                messages.append({"role": "assistant", "content": parts})
        return messages


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _image_part(picture: Picture, read: Callable[[Picture], str]) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": read(picture)}}
