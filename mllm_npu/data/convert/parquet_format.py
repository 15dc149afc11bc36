"""Parquet format: tables with the bytes of their pictures, as data sets are published."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mllm_npu.data.convert.listing import Listing
from mllm_npu.data.convert.picture_source import PictureSource
from mllm_npu.data.convert.record_rows import to_rows
from mllm_npu.data.convert.source_format import Options, Part, Refusal, SourceFormat
from mllm_npu.data.convert.table_rows import (
    BATCH_ROWS,
    class_columns,
    import_pyarrow,
    read_table,
)
from mllm_npu.data.row import Row


class ParquetFormat(SourceFormat):
    """Reads ``*.parquet``; every row tells by its columns what it is."""

    name = "parquet"
    summary = "parquet files with pictures as bytes (image, images) and text, label or messages"

    def recognises(self, listing: Listing) -> bool:
        """Whether there is a parquet file."""
        return bool(listing.paths(".parquet"))

    def split(self, listing: Listing, options: Options) -> Sequence[Part]:
        """Neighbouring row groups together until they have so many rows."""
        return [
            part
            for path in listing.paths(".parquet")
            for part in _split_file(path, options.rows_per_part)
        ]

    def read(self, part: Part, options: Options) -> Iterator[Row | Refusal]:
        """One row for each row."""
        return to_rows(
            _read_groups(part),
            pictures=PictureSource(folder=options.images or Path(part.path).parent),
            class_names=options.class_names,
        )


def _split_file(path: Path, rows_per_part: int) -> Iterator[Part]:
    try:
        metadata = import_pyarrow("pyarrow.parquet").read_metadata(path)
    except (OSError, ValueError) as error:
        yield Part(path=str(path), num_bytes=path.stat().st_size, broken=_first_line(error))
        return
    start = first = count = num_bytes = 0
    for group in range(metadata.num_row_groups):
        count += metadata.row_group(group).num_rows
        num_bytes += metadata.row_group(group).total_byte_size
        if count - first >= rows_per_part or group == metadata.num_row_groups - 1:
            yield Part(
                path=str(path),
                start=start,
                end=group + 1,
                first=first,
                num_rows=count - first,
                num_bytes=num_bytes,
            )
            start, first, num_bytes = group + 1, count, 0


def _read_groups(part: Part) -> Iterator[tuple[str, dict[str, Any]] | Refusal]:
    if part.broken:
        yield Refusal(reason="file broken", at="row 0", detail=part.broken, broken=True)
        return
    done = 0
    try:
        with import_pyarrow("pyarrow.parquet").ParquetFile(part.path) as file:
            classes = class_columns(file.schema_arrow.metadata)
            groups = list(range(part.start, part.end))
            batches = file.iter_batches(batch_size=BATCH_ROWS, row_groups=groups)
            for record in read_table(batches, classes, part.first):
                done += 1
                yield record
    except (OSError, ValueError) as error:
        at = f"row {part.first + done}"
        yield Refusal(reason="file broken", at=at, detail=_first_line(error), broken=True)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200] or type(error).__name__
