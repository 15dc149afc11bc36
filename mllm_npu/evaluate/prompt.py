"""Put the question of a benchmark to a model: as text that goes on, or as a turn of a chat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from mllm_npu.evaluate.task import Example
from mllm_npu.processing.conversation import Conversation, Part, ReadImage, Text, Turn
from mllm_npu.processing.raster import Picture

Frame = Literal["plain", "chat"]
"""``plain`` is text without roles, as published few-shot prompts are; ``chat`` a user's turn in the
model's own chat frame, as a tuned model knows it."""


def put_question(
    parts: Sequence[str | Picture], *, frame: Frame, shots: Sequence[str] = (), intro: str = ""
) -> Conversation:
    """A conversation of one turn that waits for the reply.

    Args:
        parts: the question, text and pictures in reading order; empty texts are left out.
        frame: see `Frame`.
        shots: solved examples that stand before it; where question and shots are too long for a
            model, the last of them are left out (`drop_shot`).
        intro: stands before all.
    """
    texts = (intro, *shots)
    before: tuple[Part, ...] = tuple(Text(text=text) for text in texts if text)
    asked = tuple(
        Text(text=part) if isinstance(part, str) else ReadImage(picture=part)
        for part in parts
        if not isinstance(part, str) or part
    )
    role: Literal["document", "user"] = "document" if frame == "plain" else "user"
    return Conversation(turns=(Turn(role=role, parts=(*before, *asked)),))


def drop_shot(conversation: Conversation, place: int) -> Conversation:
    """The same question without the part at a place of its last turn."""
    *before, last = conversation.turns
    parts = (*last.parts[:place], *last.parts[place + 1 :])
    return Conversation(turns=(*before, Turn(role=last.role, parts=parts, learn=last.learn)))


def list_texts(example: Example) -> tuple[list[str], list[int]]:
    """All texts of a question in reading order, and which of them are solved examples."""
    texts: list[str] = []
    shots: list[int] = []
    last = example.conversation.turns[-1]
    solved = range(example.first_shot, example.first_shot + example.num_shots)
    for turn in example.conversation.turns:
        for place, part in enumerate(turn.parts):
            if isinstance(part, Text):
                if turn is last and place in solved:
                    shots.append(len(texts))
                texts.append(part.text)
    return texts, shots
