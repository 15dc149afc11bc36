"""Instruction rows: chat messages with pictures; what the assistant says and draws is learnt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any, Literal

from mllm_npu.data.forms import Form
from mllm_npu.data.row import Row
from mllm_npu.data.tasks.task import CountTokens, Task
from mllm_npu.errors import SkipSample
from mllm_npu.processing.conversation import Conversation, DrawnImage, Part, ReadImage, Text, Turn

_Speaker = Literal["system", "user", "assistant"]
_Content = list[dict[str, Any]]
_SPEAKERS: dict[str, _Speaker] = {"system": "system", "user": "user", "assistant": "assistant"}


class Instruction(Task):
    """Learns the assistant's turns; pictures in them are drawn, all others are read.

    Args:
        system: system prompt of rows that bring none; empty for none.
    """

    name = "instruction"

    def __init__(self, *, system: str = "") -> None:
        self.system = system

    def to_conversation(self, row: Row, rng: Random, form: int | None = None) -> Conversation:
        """All messages as turns."""
        return self._conversation(row, [_to_turn(row, *m) for m in self._messages(row)])

    def forms(self, row: Row, count_tokens: CountTokens) -> Sequence[Form]:
        """The one form it has."""
        messages = self._messages(row)
        content = [(role, part) for role, parts in messages for part in parts]
        pictures = [(role, part["image"]) for role, part in content if part["type"] == "image"]
        reads = tuple(row.picture_size(name) for role, name in pictures if role != "assistant")
        texts = [
            (role, count_tokens(part["text"])) for role, part in content if part["type"] == "text"
        ]
        roles = Counter(role for role, _ in messages)
        return [
            Form(
                num_text_tokens=sum(tokens for _, tokens in texts),
                num_learnt_tokens=sum(tokens for role, tokens in texts if role == "assistant"),
                num_systems=roles["system"],
                num_users=roles["user"],
                num_assistants=roles["assistant"],
                reads=reads,
                num_drawn=len(pictures) - len(reads),
            )
        ]

    def _messages(self, row: Row) -> list[tuple[_Speaker, _Content]]:
        messages = row.json().get("messages")
        if not isinstance(messages, list) or not messages:
            raise SkipSample("messages missing")
        checked = [_check_message(message) for message in messages]
        if not any(role == "assistant" for role, _ in checked):
            raise SkipSample("no answer to learn")
        if self.system and checked[0][0] != "system":
            checked.insert(0, ("system", [{"type": "text", "text": self.system}]))
        return checked


def _check_message(message: Any) -> tuple[_Speaker, _Content]:
    if not isinstance(message, dict) or message.get("role") not in _SPEAKERS:
        raise SkipSample("message with an unknown role")
    content = message.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list) or not content:
        raise SkipSample("message without content")
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("text", "image"):
            raise SkipSample("content of an unknown type")
        if not isinstance(part.get(kind), str) or not part[kind]:
            raise SkipSample("text or image of a message missing")
    return _SPEAKERS[message["role"]], content


def _to_turn(row: Row, role: _Speaker, content: _Content) -> Turn:
    parts = tuple(_to_part(row, role, part) for part in content)
    return Turn(role=role, parts=parts, learn=role == "assistant")


def _to_part(row: Row, role: _Speaker, part: dict[str, Any]) -> Part:
    if part["type"] == "text":
        return Text(text=part["text"])
    picture = row.picture(part["image"])
    return DrawnImage(picture=picture) if role == "assistant" else ReadImage(picture=picture)
