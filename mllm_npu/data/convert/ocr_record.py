"""OCR records: a picture with questions and answers in turn, as the original keeps them."""

from __future__ import annotations

from typing import Any

from mllm_npu.data.convert.caption_record import PICTURES
from mllm_npu.data.convert.picture_source import PictureSource, first_of
from mllm_npu.data.convert.record_kind import Record, RecordKind, encode_json
from mllm_npu.errors import SkipSample


class OcrRecord(RecordKind):
    """``{"image": "a.jpg", "data": ["What is written?", "EXIT"]}``."""

    name = "ocr"
    summary = "jsonl of a picture path and a list of question, answer, question, answer ..."

    def recognises(self, record: Record) -> bool:
        """A list of texts under ``data`` or ``conversations``."""
        texts = _texts(record)
        return isinstance(texts, list) and bool(texts) and all(isinstance(t, str) for t in texts)

    def to_members(self, record: Record, pictures: PictureSource) -> dict[str, bytes]:
        """The picture and the turns."""
        texts = _texts(record)
        if not isinstance(texts, list) or not texts:
            raise SkipSample("questions and answers missing")
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise SkipSample("question or answer empty")
        if len(texts) % 2:
            raise SkipSample("a question without an answer")
        stored = pictures.load(first_of(record, PICTURES))
        values = {"conversations": texts}
        return {stored.extension: stored.data, "json": encode_json(values, record=record)}


def _texts(record: Record) -> Any:
    return first_of(record, ("data", "conversations"))
