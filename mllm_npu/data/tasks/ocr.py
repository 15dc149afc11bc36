"""OCR rows: a picture and questions about what is written in it, with their answers."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from mllm_npu.data.forms import Form
from mllm_npu.data.row import Row
from mllm_npu.data.tasks.task import CountTokens, Task
from mllm_npu.errors import SkipSample
from mllm_npu.processing.conversation import Conversation, Part, ReadImage, Text, Turn


class Ocr(Task):
    """Reads a picture and answers one question after the other; only answers carry loss.

    Args:
        chat: whether questions and answers are chat turns instead of one raw document.
    """

    name = "ocr"

    def __init__(self, *, chat: bool = True) -> None:
        self.chat = chat

    def to_conversation(self, row: Row, rng: Random, form: int | None = None) -> Conversation:
        """The picture before the first question, then all turns."""
        texts = _texts(row)
        opening: tuple[Part, ...] = (ReadImage(picture=row.picture()),)
        if not self.chat:
            parts = [Text(text=text, learn=bool(n % 2)) for n, text in enumerate(texts)]
            whole = Turn(role="document", parts=(*opening, *parts), learn=True)
            return self._conversation(row, [whole])
        turns = []
        for question, answer in zip(texts[::2], texts[1::2], strict=True):
            turns.append(Turn(role="user", parts=(*opening, Text(text=question))))
            turns.append(Turn(role="assistant", parts=(Text(text=answer),), learn=True))
            opening = ()
        return self._conversation(row, turns)

    def forms(self, row: Row, count_tokens: CountTokens) -> Sequence[Form]:
        """The one form it has."""
        tokens = [count_tokens(text) for text in _texts(row)]
        turns = len(tokens) // 2 if self.chat else 0
        return [
            Form(
                num_text_tokens=sum(tokens),
                num_learnt_tokens=sum(tokens[1::2]),
                num_users=turns,
                num_assistants=turns,
                reads=(row.picture_size(),),
            )
        ]


def _texts(row: Row) -> list[str]:
    """Question, answer, question, answer ...; original rows call the list ``data``."""
    values = row.json()
    texts = values.get("conversations", values.get("data"))
    if not isinstance(texts, list) or not texts:
        raise SkipSample("conversations missing")
    if len(texts) % 2:
        raise SkipSample("a question without an answer")
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise SkipSample("question or answer empty")
    return [text.strip() for text in texts]
