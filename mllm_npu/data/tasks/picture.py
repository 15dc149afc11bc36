"""Picture rows: a picture alone, to train what draws it on its own features."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from mllm_npu.data.forms import Form
from mllm_npu.data.row import Row
from mllm_npu.data.tasks.task import CountTokens, Task
from mllm_npu.processing.conversation import Conversation, DrawnImage, Turn


class Picture(Task):
    """Draws the picture of a row; whatever text lies beside it is not used."""

    name = "picture"

    def to_conversation(self, row: Row, rng: Random, form: int | None = None) -> Conversation:
        """One document turn."""
        parts = (DrawnImage(picture=row.picture()),)
        return self._conversation(row, [Turn(role="document", parts=parts, learn=True)])

    def forms(self, row: Row, count_tokens: CountTokens) -> Sequence[Form]:
        """The one form it has."""
        row.picture_size()
        return [Form(num_text_tokens=0, num_learnt_tokens=0, num_drawn=1)]
