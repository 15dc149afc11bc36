"""Record rows: number the records of a part and turn each into a row or a refusal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mllm_npu.data.convert.caption_record import CaptionRecord
from mllm_npu.data.convert.chat_record import ChatRecord
from mllm_npu.data.convert.edit_record import EditRecord
from mllm_npu.data.convert.ocr_record import OcrRecord
from mllm_npu.data.convert.picture_source import PictureSource
from mllm_npu.data.convert.record_kind import RecordKind
from mllm_npu.data.convert.source_format import Refusal, refuse
from mllm_npu.data.convert.text_record import TextRecord
from mllm_npu.data.row import Row
from mllm_npu.errors import SkipSample

KINDS: tuple[RecordKind, ...] = (  # the most particular first
    EditRecord(),
    ChatRecord(),
    OcrRecord(),
    CaptionRecord(),
    TextRecord(),
)
_CLASSES = ("label", "class", "cls")


def kind_of(record: dict[str, Any]) -> RecordKind | None:
    """The kind that recognises a record, None if none does."""
    return next((kind for kind in KINDS if kind.recognises(record)), None)


def to_rows(
    records: Iterable[tuple[str, dict[str, Any]] | Refusal],
    *,
    pictures: PictureSource,
    kind: RecordKind | None = None,
    class_names: Sequence[str] = (),
) -> Iterator[Row | Refusal]:
    """Rows of records, with keys ``0000000``, ``0000001``, ... by position.

    Args:
        records: each with where it stands in the source.
        pictures: loads what they refer to.
        kind: of all records; None decides for each.
        class_names: names for numbers under ``label``, ``class`` or ``cls``.
    """
    for number, entry in enumerate(records):
        if isinstance(entry, Refusal):
            yield entry
            continue
        at, record = entry
        chosen = kind or kind_of(record)
        if chosen is None:
            names = ", ".join(record)[:200]
            yield Refusal(reason="entries not understood", at=at, detail=names)
            continue
        try:
            members = chosen.to_members(_name_classes(record, class_names), pictures)
        except SkipSample as error:
            yield refuse(error, at)
        else:
            yield Row(key=f"{number:07d}", members=members)


def _name_classes(record: dict[str, Any], class_names: Sequence[str]) -> dict[str, Any]:
    named = {
        name: class_names[record[name]]
        for name in _CLASSES
        if class_names
        and isinstance(record.get(name), int)
        and 0 <= record[name] < len(class_names)
    }
    return {**record, **named}
