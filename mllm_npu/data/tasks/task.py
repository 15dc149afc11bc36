"""Task: what one kind of row means; turns it into a conversation and says how long that can get."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from mllm_npu.data.row import Row
from mllm_npu.errors import SkipSample
from mllm_npu.processing.conversation import Conversation, Part, Turn

CountTokens = Callable[[str], int]
"""Gives the number of tokens of a text."""

SPLIT_MARGIN = 2
"""Tokens that a text may have more than its two pieces counted apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """How long a row can get, for planning packs without encoding it.

    Args:
        num_text_tokens: tokens of all its texts, an upper bound.
        num_turns: turns with a chat frame; raw documents have none.
        reads: width and height of each picture that is read.
        num_drawn: pictures that are drawn.
    """

    num_text_tokens: int
    num_turns: int
    reads: tuple[tuple[int, int], ...] = ()
    num_drawn: int = 0


class Task(ABC):
    """Turns rows of one kind into conversations.

    Attributes:
        name: the kind, as batches and metrics call it.
    """

    name: str

    @abstractmethod
    def to_conversation(self, row: Row, rng: Random) -> Conversation:
        """The conversation of a row; pure, so that the same row and rng state give the same one.

        Raises:
            SkipSample: if the row is not fit for this task; the message is the reason counted.
        """

    @abstractmethod
    def measure(self, row: Row, count_tokens: CountTokens) -> Sequence[Measure]:
        """Lengths of every form the row may take, whatever the rng says.

        Raises:
            SkipSample: as ``to_conversation``.
        """

    def _conversation(self, row: Row, turns: Iterable[Turn]) -> Conversation:
        return Conversation(turns=tuple(turns), key=row.key, task=self.name)


def as_turns(question: Sequence[Part], answer: Sequence[Part], *, chat: bool) -> tuple[Turn, ...]:
    """A question and its answer as two chat turns or as one raw document, learning the answer."""
    if not chat:
        return (Turn(role="document", parts=(*question, *answer), learn=True),)
    return (
        Turn(role="user", parts=tuple(question)),
        Turn(role="assistant", parts=tuple(answer), learn=True),
    )


def read_string(values: Mapping[str, Any], name: str) -> str:
    """A text entry of a row's json without the blanks around it.

    Raises:
        SkipSample: if it is missing, empty, or not a text.
    """
    value = values.get(name)
    if not isinstance(value, str):
        raise SkipSample(f"{name} missing")
    if not value.strip():
        raise SkipSample(f"{name} empty")
    return value.strip()


def longest(texts: Sequence[str], count_tokens: CountTokens) -> int:
    """Tokens of the longest of the texts."""
    return max((count_tokens(text) for text in texts if text), default=0)
