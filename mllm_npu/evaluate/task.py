"""A benchmark task is three answers: its examples, the score of a reply, where it comes from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from mllm_npu.inference.events import Reply
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import Conversation


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One question with what is right.

    Args:
        name: unique in its task.
        conversation: waits for a reply.
        answer: what is right, in words.
        options: how the reply is made.
        truth: the right picture, where the reply is one.
    """

    name: str
    conversation: Conversation
    answer: str
    options: GenerationOptions
    truth: Image.Image | None = None


class Task(ABC):
    """Examples, score and citation of one figure.

    Attributes:
        name: key of the figure in the report.
        title: the figure in words.
        citation: where task and data come from.
    """

    name: str
    title: str
    citation: str

    @abstractmethod
    def examples(self) -> Sequence[Example]:
        """All questions, in a fixed order."""

    @abstractmethod
    def score(self, example: Example, reply: Reply) -> float:
        """How right a reply is, 0..1."""

    def explain(self, example: Example, reply: Reply) -> str:
        """What was understood of a reply, in words."""
        return reply.text.strip()


def is_exact(example: Example, reply: Reply) -> float:
    """1 when the reply says the answer and nothing else, apart from blanks at its ends."""
    return float(reply.text.strip() == example.answer.strip())
