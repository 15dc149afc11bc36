"""JSON formats: files of JSON objects, one format for every kind of record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mllm_npu.data.convert.json_array import is_array
from mllm_npu.data.convert.json_records import first_record, read_records, split_records
from mllm_npu.data.convert.listing import Listing
from mllm_npu.data.convert.picture_source import PictureSource
from mllm_npu.data.convert.record_kind import RecordKind
from mllm_npu.data.convert.record_rows import kind_of, to_rows
from mllm_npu.data.convert.source_format import Options, Part, Refusal, SourceFormat
from mllm_npu.data.row import Row


class JsonFormat(SourceFormat):
    """Reads ``*.jsonl`` and ``*.json`` files whose objects are of one kind.

    Args:
        kind: what the objects are.
    """

    def __init__(self, *, kind: RecordKind) -> None:
        self.kind = kind
        self.name = kind.name
        self.aliases = kind.aliases
        self.summary = kind.summary

    def recognises(self, listing: Listing) -> bool:
        """Whether the first object of the first file is of this kind and of no other."""
        for path in _record_files(listing):
            record = first_record(path)
            if record is not None:
                kind = kind_of(record)
                return kind is not None and kind.name == self.name
        return False

    def split(self, listing: Listing, options: Options) -> Sequence[Part]:
        """Parts of so many records; pictures are not counted in their bytes."""
        return [
            part
            for path in _record_files(listing)
            for part in split_records(path, options.rows_per_part)
        ]

    def read(self, part: Part, options: Options) -> Iterator[Row | Refusal]:
        """One row for each object."""
        return to_rows(
            read_records(part),
            pictures=PictureSource(folder=options.images or Path(part.path).parent),
            kind=self.kind,
            class_names=options.class_names,
        )


def _record_files(listing: Listing) -> list[Path]:
    """Files of records; in a folder a json of one object is not one, it belongs to a picture."""
    if len(listing.names) == 1:
        return listing.paths(".jsonl", ".json", ".ndjson")
    return [
        path
        for path in listing.paths(".jsonl", ".json", ".ndjson")
        if not path.name.lower().endswith(".json") or is_array(path) or _is_lines(path)
    ]


def _is_lines(path: Path) -> bool:
    with path.open("rb") as file:
        lines = [file.readline().strip() for _ in range(2)]
    return all(line[:1] == b"{" and line[-1:] == b"}" for line in lines)
