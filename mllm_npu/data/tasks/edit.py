"""Edit rows: a picture, an instruction, and the picture as it should be; once or several times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from mllm_npu.data.forms import Form
from mllm_npu.data.row import Row
from mllm_npu.data.tasks.task import CountTokens, Task, as_turns, read_string
from mllm_npu.errors import SkipSample
from mllm_npu.processing.conversation import (
    Conversation,
    DrawnImage,
    Part,
    ReadImage,
    Text,
    Turn,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    instruction: str
    target: str


class Edit(Task):
    """Reads the first picture and an instruction, draws what it makes of it, and so on.

    A row is ``source.*``, ``target.*`` and ``{"instruction": ...}``, or any pictures and
    ``{"source": name, "turns": [{"instruction": ..., "target": name}, ...]}``.

    Args:
        chat: whether instructions and answers are chat turns instead of one raw document.
    """

    name = "edit"

    def __init__(self, *, chat: bool = True) -> None:
        self.chat = chat

    def to_conversation(self, row: Row, rng: Random, form: int | None = None) -> Conversation:
        """The picture before the first instruction, then instruction and drawn answer in turn."""
        source, changes = _read(row)
        shown: tuple[Part, ...] = (ReadImage(picture=row.picture(source)),)
        turns: list[Turn] = []
        for change in changes:
            question = (*shown, Text(text=change.instruction, learn=False))
            answer = (DrawnImage(picture=row.picture(change.target)),)
            turns.extend(as_turns(question, answer, chat=self.chat))
            shown = ()
        if not self.chat:
            parts = tuple(part for turn in turns for part in turn.parts)
            turns = [Turn(role="document", parts=parts, learn=True)]
        return self._conversation(row, turns)

    def forms(self, row: Row, count_tokens: CountTokens) -> Sequence[Form]:
        """The one form it has."""
        source, changes = _read(row)
        for change in changes:
            row.picture_size(change.target)
        turns = len(changes) if self.chat else 0
        return [
            Form(
                num_text_tokens=sum(count_tokens(change.instruction) for change in changes),
                num_learnt_tokens=0,
                num_users=turns,
                num_assistants=turns,
                reads=(row.picture_size(source),),
                num_drawn=len(changes),
            )
        ]


def _read(row: Row) -> tuple[str, list[_Change]]:
    """Member of the first picture, and the changes in order."""
    values = row.json()
    turns = values.get("turns")
    if turns is None:
        instruction = read_string(values, "instruction")
        target = _find(row, "target")
        return _find(row, "source"), [_Change(instruction=instruction, target=target)]
    if (
        not isinstance(turns, list)
        or not turns
        or not all(isinstance(turn, dict) for turn in turns)
    ):
        raise SkipSample("turns of an edit missing")
    changes = [
        _Change(instruction=read_string(turn, "instruction"), target=read_string(turn, "target"))
        for turn in turns
    ]
    return read_string(values, "source"), changes


def _find(row: Row, stem: str) -> str:
    for name in row.picture_names():
        if name.startswith(f"{stem}."):
            return name
    raise SkipSample(f"{stem} picture missing")
