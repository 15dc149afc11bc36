"""Counting rows: a picture, a thing, and how many of it there are."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from mllm_npu.data.forms import Form
from mllm_npu.data.row import Row
from mllm_npu.data.tasks.task import CountTokens, Task, as_turns, read_string
from mllm_npu.errors import SkipSample
from mllm_npu.processing.conversation import Conversation, ReadImage, Text


class Counting(Task):
    """Learns the number, asked in a chat."""

    name = "counting"

    def to_conversation(self, row: Row, rng: Random, form: int | None = None) -> Conversation:
        """A question with the picture, and the number."""
        question, answer = _read(row)
        asked = (ReadImage(picture=row.picture()), Text(text=question))
        return self._conversation(row, as_turns(asked, (Text(text=answer),), chat=True))

    def forms(self, row: Row, count_tokens: CountTokens) -> Sequence[Form]:
        """The one form it has; its length must be exact."""
        question, answer = _read(row)
        learnt = count_tokens(answer)
        return [
            Form(
                num_text_tokens=count_tokens(question) + learnt,
                num_learnt_tokens=learnt,
                num_users=1,
                num_assistants=1,
                reads=(row.picture_size(),),
            )
        ]


def _read(row: Row) -> tuple[str, str]:
    values = row.json()
    number = values.get("number")
    if not isinstance(number, int):
        raise SkipSample("number missing")
    return f"How many {read_string(values, 'thing')}?", str(number)
