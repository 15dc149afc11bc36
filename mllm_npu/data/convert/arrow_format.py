"""Arrow format: folders that Hugging Face ``datasets`` wrote with ``save_to_disk``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mllm_npu.data.convert.listing import Listing
from mllm_npu.data.convert.picture_source import PictureSource
from mllm_npu.data.convert.record_rows import to_rows
from mllm_npu.data.convert.source_format import Options, Part, Refusal, SourceFormat
from mllm_npu.data.convert.table_rows import class_columns, import_pyarrow, read_table
from mllm_npu.data.row import Row


class ArrowFormat(SourceFormat):
    """Reads ``*.arrow`` of one data set or of all its splits; ``datasets`` is not needed."""

    name = "arrow"
    aliases = ("datasets", "load_from_disk")
    summary = "folder of a Hugging Face data set (save_to_disk): *.arrow, dataset_info.json"

    def recognises(self, listing: Listing) -> bool:
        """Whether there is an Arrow file."""
        return bool(listing.paths(".arrow"))

    def split(self, listing: Listing, options: Options) -> Sequence[Part]:
        """Every file is a part; ``datasets`` keeps them below 500 MB."""
        return [
            Part(path=str(path), num_bytes=path.stat().st_size)
            for path in listing.paths(".arrow")
            if not path.name.startswith("cache-")
        ]

    def read(self, part: Part, options: Options) -> Iterator[Row | Refusal]:
        """One row for each row."""
        return to_rows(
            _read_file(part),
            pictures=PictureSource(folder=options.images or Path(part.path).parent),
            class_names=options.class_names,
        )


def _read_file(part: Part) -> Iterator[tuple[str, dict[str, Any]] | Refusal]:
    pyarrow = import_pyarrow()
    done = 0
    try:
        with pyarrow.memory_map(part.path) as file:
            reader = _open_reader(pyarrow, file)
            classes = class_columns(reader.schema.metadata)
            for record in read_table(_batches(reader), classes, 0):
                done += 1
                yield record
    except (OSError, ValueError) as error:
        detail = str(error).partition("\n")[0][:200]
        yield Refusal(reason="file broken", at=f"row {done}", detail=detail, broken=True)


def _open_reader(pyarrow: Any, file: Any) -> Any:
    """A stream as ``datasets`` writes it, or a file with a footer."""
    try:
        return pyarrow.ipc.open_stream(file)
    except (OSError, ValueError):
        file.seek(0)
        return pyarrow.ipc.open_file(file)


def _batches(reader: Any) -> Iterator[Any]:
    if hasattr(reader, "num_record_batches"):
        yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
    else:
        yield from reader
