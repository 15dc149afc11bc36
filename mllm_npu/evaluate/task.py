"""A benchmark task is three answers: its examples, the score of a reply, where it comes from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from PIL import Image

from mllm_npu.evaluate.figure import Figure, mean_figure
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
        choices: texts the model chooses from: how likely each is as the reply is computed, and the
            reply is the likeliest of them; nothing is generated. Each is put after the question as
            it is, with a blank at its start where the question ends without one.
        num_shots: solved examples among the parts of the last turn. Where the question is too long
            for a model, the last of them is left out, and again, until it fits.
        first_shot: place of the first of them.
        groups: what the example belongs to, from the widest to the narrowest ("stem",
            "abstract_algebra").
        facts: what else a score needs to know, in plain words.
        redraws: the reply is the picture of the conversation, sent through vision encoder and image
            decoder past the language model; nothing is generated.
    """

    name: str
    conversation: Conversation
    answer: str
    options: GenerationOptions
    truth: Image.Image | None = None
    choices: tuple[str, ...] = ()
    num_shots: int = 0
    first_shot: int = 0
    groups: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    redraws: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One example with its reply.

    Args:
        example: the question.
        reply: what the model said and drew; where there were choices, its text is the likeliest
            and its ``choices`` say how likely each was.
        understood: the reply as the score understood it; None where it has no form that an answer
            can have.
        score: 0..1, or what the benchmark counts in.
        seconds: until the reply was there, those of others that ran beside it included.
        refused: why it could not be asked; None where it was.
    """

    example: Example
    reply: Reply
    understood: str | None
    score: float
    seconds: float | None = None
    refused: str | None = None


class Task(ABC):
    """Examples, score and citation of one benchmark.

    Attributes:
        name: key of the figure in the report.
        title: the figure in words.
        citation: where task and data come from.
        needs_drawing: whether a model that cannot draw cannot be asked.
    """

    name: str
    title: str
    citation: str
    needs_drawing: bool = False

    @abstractmethod
    def examples(self) -> Sequence[Example]:
        """All questions, in a fixed order."""

    def look(self, replies: Sequence[tuple[Example, Reply]]) -> None:  # noqa: B027 - may be empty
        """Told of all replies before the first is scored, for judges that take many at once."""

    @abstractmethod
    def score(self, example: Example, reply: Reply) -> float:
        """How right a reply is, 0..1 unless the benchmark counts otherwise."""

    def explain(self, example: Example, reply: Reply) -> str | None:
        """What was understood of a reply, in words; None where it has no form of an answer."""
        return reply.text.strip()

    def figures(self, records: Sequence[Record]) -> Sequence[Figure]:
        """The numbers of the task, the first one its main number; names begin with its name."""
        return [
            mean_figure(
                name=self.name,
                title=self.title,
                values=[record.score for record in records],
                citation=self.citation,
                num_unread=count_unread(records),
            )
        ]

    def submissions(self, records: Sequence[Record]) -> Mapping[str, str | Image.Image]:
        """Files an official evaluation takes, texts and pictures by name; most tasks have none."""
        return {}


def count_unread(records: Sequence[Record]) -> int:
    """Replies that had no form an answer can have; a question that was refused has no reply."""
    return sum(record.understood is None and record.refused is None for record in records)


def is_exact(example: Example, reply: Reply) -> float:
    """1 when the reply says the answer and nothing else, apart from blanks at its ends."""
    return float(reply.text.strip() == example.answer.strip())
