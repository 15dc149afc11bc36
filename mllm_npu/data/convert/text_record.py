"""Text records: a document without pictures."""

from __future__ import annotations

from mllm_npu.data.convert.picture_source import PictureSource
from mllm_npu.data.convert.record_kind import Record, RecordKind, encode_json
from mllm_npu.errors import SkipSample

_NAMES = ("text", "content")


class TextRecord(RecordKind):
    """``{"text": "three plus nine is twelve."}``."""

    name = "text"
    aliases = ("pure_text",)
    summary = "jsonl of a text each"

    def recognises(self, record: Record) -> bool:
        """A text."""
        return any(isinstance(record.get(name), str) for name in _NAMES)

    def to_members(self, record: Record, pictures: PictureSource) -> dict[str, bytes]:
        """The text as it is."""
        texts = [record[name] for name in _NAMES if isinstance(record.get(name), str)]
        if not texts:
            raise SkipSample("text missing")
        if not texts[0].strip():
            raise SkipSample("text empty")
        return {"json": encode_json({"text": texts[0]}, record=record)}
