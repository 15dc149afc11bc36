"""Pure text rows: a document without pictures."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from mllm_npu.data.forms import Form
from mllm_npu.data.row import Row
from mllm_npu.data.tasks.task import CountTokens, Task, read_string
from mllm_npu.errors import SkipSample
from mllm_npu.processing.conversation import Conversation, Text, Turn


class PureText(Task):
    """Learns every token of a text."""

    name = "pure_text"

    def to_conversation(self, row: Row, rng: Random, form: int | None = None) -> Conversation:
        """One document turn."""
        turn = Turn(role="document", parts=(Text(text=_text(row)),), learn=True)
        return self._conversation(row, [turn])

    def forms(self, row: Row, count_tokens: CountTokens) -> Sequence[Form]:
        """The one form it has."""
        tokens = count_tokens(_text(row))
        return [Form(num_text_tokens=tokens, num_learnt_tokens=tokens)]


def _text(row: Row) -> str:
    if "json" in row.members:
        return read_string(row.json(), "text")
    text = row.text()
    if not text:
        raise SkipSample("text empty")
    return text
