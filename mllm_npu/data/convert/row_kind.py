"""Row kind: which task of training reads a row, by its members."""

from __future__ import annotations

import json

from mllm_npu.data.row import Row, is_picture_name

_BY_ENTRY = {
    "messages": "instruction",
    "parts": "interleaved",
    "turns": "edit (several turns)",
    "instruction": "edit",
    "conversations": "ocr",
    "data": "ocr",
}


def kind_of_row(row: Row) -> str:
    """Name of the task; ``picture`` for pictures that nothing is said of."""
    values = json.loads(row.members["json"]) if "json" in row.members else {}
    for entry, kind in _BY_ENTRY.items():
        if entry in values:
            return kind
    if not any(is_picture_name(name) for name in row.members):
        return "pure_text"
    return "caption" if "txt" in row.members or "caption" in values else "picture"
