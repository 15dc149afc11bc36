"""Task: what one kind of row means; turns it into a conversation and says how long that can get."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import Any

from mllm_npu.data.forms import Form
from mllm_npu.data.row import Row
from mllm_npu.errors import SkipSample
from mllm_npu.processing.conversation import Conversation, Part, Turn

CountTokens = Callable[[str], int]
"""Gives the number of tokens of a text."""

MOST_FORMS = 16
"""A row with more forms than that is measured by its longest texts."""


class Task(ABC):
    """Turns rows of one kind into conversations.

    Attributes:
        name: the kind, as batches and metrics call it.
    """

    name: str

    @abstractmethod
    def to_conversation(self, row: Row, rng: Random, form: int | None = None) -> Conversation:
        """The conversation of a row; pure, so that the same arguments give the same one.

        Args:
            row: what the shard holds.
            rng: decides what the form leaves open.
            form: number of the form in ``forms``; None lets the rng choose by share.

        Raises:
            SkipSample: if the row is not fit for this task; the message is the reason counted.
        """

    @abstractmethod
    def forms(self, row: Row, count_tokens: CountTokens) -> Sequence[Form]:
        """Everything the row can become, with the length of each.

        Raises:
            SkipSample: as ``to_conversation``.
        """

    @property
    def meaning(self) -> str:
        """Everything the forms of a row follow from beside the row and the tokenizer."""
        settings = {name: value for name, value in vars(self).items() if name[0] != "_"}
        return f"{type(self).__qualname__}{json.dumps(settings, sort_keys=True, default=repr)}"

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


def choose(shares: Sequence[float], rng: Random, form: int | None) -> int:
    """The form that is asked for, or one by share."""
    if form is None:
        return rng.choices(range(len(shares)), shares)[0]
    return min(form, len(shares) - 1)
