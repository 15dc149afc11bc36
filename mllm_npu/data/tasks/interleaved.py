"""Interleaved rows: a document of texts and pictures in reading order, some of them drawn."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from mllm_npu.data.forms import Form
from mllm_npu.data.row import Row
from mllm_npu.data.tasks.task import CountTokens, Task
from mllm_npu.errors import SkipSample
from mllm_npu.processing.conversation import Conversation, DrawnImage, Part, ReadImage, Text, Turn


class Interleaved(Task):
    """Learns every text of a document and draws the pictures marked so."""

    name = "interleaved"

    def to_conversation(self, row: Row, rng: Random, form: int | None = None) -> Conversation:
        """One document turn."""
        parts = tuple(_to_part(row, part) for part in _parts(row))
        return self._conversation(row, [Turn(role="document", parts=parts, learn=True)])

    def forms(self, row: Row, count_tokens: CountTokens) -> Sequence[Form]:
        """The one form it has."""
        parts = _parts(row)
        texts = [part for part in parts if "image" not in part]
        tokens = [count_tokens(part["text"]) for part in texts]
        learnt = [_is_learnt(part) is not False for part in texts]
        pictures = [part for part in parts if "image" in part]
        reads = tuple(row.picture_size(part["image"]) for part in pictures if not part.get("draw"))
        return [
            Form(
                num_text_tokens=sum(tokens),
                num_learnt_tokens=sum(n for n, learn in zip(tokens, learnt, strict=True) if learn),
                reads=reads,
                num_drawn=len(pictures) - len(reads),
            )
        ]


def _parts(row: Row) -> list[dict[str, Any]]:
    """Checked parts; texts keep their blanks, for they join what stands around them."""
    parts = row.json().get("parts")
    if not isinstance(parts, list) or not parts:
        raise SkipSample("parts missing")
    for part in parts:
        if not isinstance(part, dict):
            raise SkipSample("part is not an object")
        content = part.get("image", part.get("text"))
        if not isinstance(content, str) or not content:
            raise SkipSample("part without text or image")
    return parts


def _is_learnt(part: dict[str, Any]) -> bool | None:
    """What a text says of itself; None where it says nothing, and follows the document."""
    says = part.get("learn")
    return None if says is None else bool(says)


def _to_part(row: Row, part: dict[str, Any]) -> Part:
    if "image" not in part:
        return Text(text=part["text"], learn=_is_learnt(part))
    picture = row.picture(part["image"])
    return DrawnImage(picture=picture) if part.get("draw") else ReadImage(picture=picture)
