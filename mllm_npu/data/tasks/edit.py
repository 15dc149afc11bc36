"""Edit rows: a picture, an instruction, and the picture as it should be."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from mllm_npu.data.row import Row
from mllm_npu.data.tasks.task import CountTokens, Measure, Task, as_turns, read_string
from mllm_npu.errors import SkipSample
from mllm_npu.processing.conversation import Conversation, DrawnImage, ReadImage, Text


class Edit(Task):
    """Reads ``source.*`` and the instruction, draws ``target.*``.

    Args:
        chat: whether instruction and answer are chat turns instead of one raw document.
    """

    name = "edit"

    def __init__(self, *, chat: bool = True) -> None:
        self.chat = chat

    def to_conversation(self, row: Row, rng: Random) -> Conversation:
        """One turn of instruction and drawn answer."""
        instruction = Text(text=read_string(row.json(), "instruction"), learn=False)
        source = ReadImage(picture=row.picture(_find(row, "source")))
        target = DrawnImage(picture=row.picture(_find(row, "target")))
        return self._conversation(row, as_turns((source, instruction), (target,), chat=self.chat))

    def measure(self, row: Row, count_tokens: CountTokens) -> Sequence[Measure]:
        """The one form it has."""
        tokens = count_tokens(read_string(row.json(), "instruction"))
        _find(row, "target")
        size = row.picture_size(_find(row, "source"))
        return [
            Measure(
                num_text_tokens=tokens, num_turns=2 if self.chat else 0, reads=(size,), num_drawn=1
            )
        ]


def _find(row: Row, stem: str) -> str:
    for name in row.picture_names():
        if name.startswith(f"{stem}."):
            return name
    raise SkipSample(f"{stem} picture missing")
