"""Cut a conversation before its last answer, so that a model is asked exactly as it was taught."""

from __future__ import annotations

from dataclasses import replace

from mllm_npu.errors import DataError
from mllm_npu.processing.conversation import Conversation, DrawnImage, Part, Text, Turn


def cut_answer(conversation: Conversation) -> tuple[Conversation, tuple[Part, ...]]:
    """Split a conversation that ends with an answer.

    In a chat the answer is the assistant's last turn; in a document, the learnt parts at its end.

    Returns:
        The open conversation, and the parts of the answer.

    Raises:
        DataError: if there is no answer, or no question before it.
    """
    *before, last = conversation.turns
    if last.role == "assistant" and before:
        return replace(conversation, turns=tuple(before)), last.parts
    if last.role == "document":
        first = len(last.parts)
        while first and _is_learnt(last, last.parts[first - 1]):
            first -= 1
        question, answer = last.parts[:first], last.parts[first:]
        if question and answer:
            open_turn = replace(last, parts=question)
            return replace(conversation, turns=(*before, open_turn)), answer
    raise DataError(
        f"Row {conversation.key!r} was to be asked, it has no question followed by an answer. "
        "Make the data of its world again."
    )


def answer_text(answer: tuple[Part, ...]) -> str:
    """The words of an answer, without blanks at its ends."""
    return "".join(part.text for part in answer if isinstance(part, Text)).strip()


def _is_learnt(turn: Turn, part: Part) -> bool:
    if isinstance(part, Text):
        return turn.learn if part.learn is None else part.learn
    return turn.learn and isinstance(part, DrawnImage)
