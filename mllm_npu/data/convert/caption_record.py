"""Caption records: a picture and what is said of it."""

from __future__ import annotations

import math
from typing import Any

from mllm_npu.data.convert.picture_source import PictureSource, first_of
from mllm_npu.data.convert.record_kind import Record, RecordKind, encode_json
from mllm_npu.errors import SkipSample

PICTURES = (
    "image", "image_path", "img", "img_path", "file_name", "filepath", "path", "jpg", "png", "webp",
)  # fmt: skip
TEXTS = ("caption", "captions", "text", "txt", "description", "label", "class", "cls")


class CaptionRecord(RecordKind):
    """``{"image": "a.jpg", "caption": "a cat", "similarity": 0.3}``; further entries are kept."""

    name = "captions"
    summary = "JSON or jsonl of a picture path and a caption, text or label each"

    def recognises(self, record: Record) -> bool:
        """A picture and a text."""
        return _names_picture(_first_picture(record)) and bool(_captions(record)[1])

    def to_members(self, record: Record, pictures: PictureSource) -> dict[str, bytes]:
        """The picture, and a json of the caption and everything else that is no picture."""
        used, captions = _captions(record)
        if not captions:
            raise SkipSample("caption missing")
        stored = pictures.load(_first_picture(record))
        left_out = {*PICTURES, "id", "caption", used}
        extra = {name: value for name, value in record.items() if name not in left_out}
        values = {
            "caption": captions[0] if len(captions) == 1 else captions,
            **{name: value for name, value in extra.items() if _is_worth(value)},
        }
        return {stored.extension: stored.data, "json": encode_json(values, record=record)}


def _first_picture(record: Record) -> Any:
    reference = first_of(record, PICTURES)
    return reference[0] if isinstance(reference, list) and len(reference) == 1 else reference


def _names_picture(reference: Any) -> bool:
    match reference:
        case str() | bytes() | {"bytes": bytes()} | {"path": str()}:
            return True
        case [only]:
            return _names_picture(only)
    return False


def _captions(record: Record) -> tuple[str, list[str]]:
    """Name of the entry that holds the captions, and the captions; none if there are none."""
    for name in TEXTS:
        value = record.get(name)
        several = value if isinstance(value, list) else [value]
        texts = [_as_text(text) for text in several]
        if all(texts) and texts:
            return name, texts
    return "", []


def _as_text(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value.strip() if isinstance(value, str) else ""


def _is_worth(value: Any) -> bool:
    """Whether an entry can stand in json and says something."""
    if isinstance(value, float):
        return math.isfinite(value)
    return value is not None and not isinstance(value, bytes) and not _names_bytes(value)


def _names_bytes(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(item, bytes) for item in value.values())
