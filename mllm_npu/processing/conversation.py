"""The one intermediate form: turns of text and images in reading order, read or drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

from mllm_npu.processing.raster import Picture

Role = Literal["system", "user", "assistant", "document"]
"""``document`` is raw text without a chat frame, as in captions, pages and plain text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A piece of text, not empty.

    Args:
        text: the characters as they are.
        learn: whether its tokens carry loss; None follows the turn.
    """

    text: str
    learn: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadImage:
    """A picture the model looks at."""

    picture: Picture


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnImage:
    """A picture the model learns to draw; its ``<img>`` carries loss, its slots are regressed."""

    picture: Picture


Part = Text | ReadImage | DrawnImage


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one side says.

    Args:
        role: who speaks.
        parts: text and images in reading order.
        learn: whether the turn's text (and what closes the turn) carries loss.
    """

    role: Role
    parts: tuple[Part, ...]
    learn: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Turns in order, with where they come from.

    Args:
        turns: at least one.
        key: name of the row in its shard.
        source: name of the data set.
        task: kind of row (caption, ocr, ...).
    """

    turns: tuple[Turn, ...]
    key: str = ""
    source: str = ""
    task: str = ""

    def named(self, source: str) -> Self:
        """The same conversation, from a data set of that name."""
        return type(self)(turns=self.turns, key=self.key, source=source, task=self.task)


def ask(question: str, pictures: Sequence[Picture] = (), *, system: str = "") -> Conversation:
    """A one-turn conversation that waits for a reply: the pictures first, then the question."""
    words: tuple[Part, ...] = (Text(text=question),) if question else ()
    parts: tuple[Part, ...] = (*(ReadImage(picture=picture) for picture in pictures), *words)
    opening = (Turn(role="system", parts=(Text(text=system),)),) if system else ()
    return Conversation(turns=(*opening, Turn(role="user", parts=parts)))
