"""Preview: read the first rows of every part and say what would come of them; writes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from mllm_npu.data.convert.converter import open_source
from mllm_npu.data.convert.part_writer import quarantine_line
from mllm_npu.data.convert.row_kind import kind_of_row
from mllm_npu.data.convert.source_format import Options, Refusal
from mllm_npu.data.row import Row

ROWS_PER_PART = 20
_EXAMPLE_CHARS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What would come of a source.

    Args:
        format_name: how it would be read.
        parts: parts of the source.
        rows_read: rows that were looked at, refused ones included.
        kinds: rows by kind among them.
        refused: refusals by reason among them.
        first_refusal: as the quarantine would hold it, None if there is none.
        expected_rows: rows of the source, None where they are not known without reading all.
        expected_bytes: about how large the shards would be, None where it cannot be told.
        example: key, members with their sizes and the beginning of the json of the first row.
    """

    format_name: str
    parts: int
    rows_read: int
    kinds: dict[str, int]
    refused: dict[str, int]
    first_refusal: dict[str, Any] | None
    expected_rows: int | None
    expected_bytes: int | None
    example: dict[str, Any] | None


def preview(
    source: str | Path,
    *,
    format_name: str = "",
    options: Options | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Preview:
    """Read 20 rows of every part.

    Args:
        source: file or folder.
        format_name: how to read it; empty to recognise it.
        options: what the user chose.
        progress: told the parts looked at, and in all.

    Raises:
        DataError: as a conversion would.
        ConfigError: as a conversion would.
    """
    options = options or Options()
    chosen, parts = open_source(source, format_name, options)
    kinds: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    first: dict[str, Any] | None = None
    example: dict[str, Any] | None = None
    num_bytes = 0
    for done, part in enumerate(parts, start=1):
        for entry in islice(chosen.read(part, options), ROWS_PER_PART):
            if isinstance(entry, Refusal):
                refused[entry.reason] += 1
                first = first or quarantine_line(part, entry)
                continue
            kinds[kind_of_row(entry)] += 1
            num_bytes += sum(_padded(len(data)) for data in entry.members.values())
            example = example or _describe(entry)
        if progress is not None:
            progress(done, len(parts))
    read, good = kinds.total() + refused.total(), kinds.total()
    rows = sum(part.num_rows for part in parts) if all(part.num_rows for part in parts) else None
    return Preview(
        format_name=chosen.name,
        parts=len(parts),
        rows_read=read,
        kinds=dict(kinds.most_common()),
        refused=dict(refused.most_common()),
        first_refusal=first,
        expected_rows=rows,
        expected_bytes=rows * num_bytes // read if rows and good else None,
        example=example,
    )


def _padded(size: int) -> int:
    """Bytes that a file takes in a tar: a header, and its content in blocks of 512."""
    return 512 + (size + 511) // 512 * 512


def _describe(row: Row) -> dict[str, Any]:
    text = row.members.get("json", row.members.get("txt", b"")).decode(errors="replace")
    return {
        "key": row.key,
        "members": {name: len(data) for name, data in row.members.items()},
        "text": text[:_EXAMPLE_CHARS],
    }
