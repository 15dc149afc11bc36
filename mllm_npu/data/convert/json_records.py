"""JSON records: split files of JSON objects into parts and read them, line by line or as an array.

A jsonl file is split at line ends. A JSON array is walked once to find where its parts begin.
Neither is ever held in memory whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from mllm_npu.data.convert.json_array import is_array, read_elements, walk_array
from mllm_npu.data.convert.source_format import Part, Refusal
from mllm_npu.errors import DataError

_MARK = b"\xef\xbb\xbf"
_FEW = 5


def first_record(path: Path) -> dict[str, Any] | None:
    """The first object among the first few entries of a file, None if there is none."""
    values: list[Any] = []
    try:
        if is_array(path):
            for element in islice(walk_array(path), _FEW):
                values.append(element.value)
        else:
            with _open(path) as file:
                values = [_parse(line.removeprefix(_MARK)) for line in islice(file, _FEW)]
    except DataError:
        pass
    return next((value for value in values if isinstance(value, dict)), None)


def _parse(line: bytes) -> Any:
    """What a line holds, None if it is no JSON."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def split_records(path: Path, rows_per_part: int) -> Iterator[Part]:
    """Parts of a file, of so many records each.

    Raises:
        DataError: if it cannot be read.
    """
    return (_split_array if is_array(path) else _split_lines)(path, rows_per_part)


def _split_lines(path: Path, rows_per_part: int) -> Iterator[Part]:
    start = end = first = count = 0
    with _open(path) as file:
        for line in file:
            end += len(line)
            count += 1
            if count - first == rows_per_part:
                yield _part(path, (start, end), (first, count))
                start, first = end, count
    if count > first:
        yield _part(path, (start, end), (first, count))


def _split_array(path: Path, rows_per_part: int) -> Iterator[Part]:
    start = end = first = count = 0
    broken = ""
    try:
        for element in walk_array(path):
            start = element.start if count == first else start
            end, count = element.end, count + 1
            if count - first == rows_per_part:
                yield _part(path, (start, end), (first, count))
                start, first = end, count
    except DataError as error:
        broken = str(error)
    if count > first or broken:
        yield _part(path, (start, end), (first, count), broken)


def _part(path: Path, span: tuple[int, int], rows: tuple[int, int], broken: str = "") -> Part:
    return Part(
        path=str(path),
        start=span[0],
        end=span[1],
        first=rows[0],
        num_rows=rows[1] - rows[0],
        num_bytes=span[1] - span[0],
        broken=broken,
    )


def read_records(part: Part) -> Iterator[tuple[str, dict[str, Any]] | Refusal]:
    """The objects of a part with where they stand, and what became of everything else.

    Raises:
        DataError: if the file cannot be read any more.
    """
    values = _array_values(part) if is_array(Path(part.path)) else _line_values(part)
    for at, value in values:
        if isinstance(value, dict):
            yield at, value
        elif value is None:
            yield Refusal(reason="json broken", at=at)
        else:
            yield Refusal(reason="json is not an object", at=at)
    if part.broken:
        yield Refusal(reason="file broken", at=part.broken, broken=True)


def _line_values(part: Part) -> Iterator[tuple[str, Any]]:
    with _open(Path(part.path)) as file:
        file.seek(part.start)
        for number in range(part.first + 1, part.first + part.num_rows + 1):
            line = file.readline().removeprefix(_MARK).strip()
            if line:
                yield f"line {number}", _parse(line)


def _array_values(part: Part) -> Iterator[tuple[str, Any]]:
    with _open(Path(part.path)) as file:
        file.seek(part.start)
        data = file.read(part.end - part.start)
    for number, value in enumerate(read_elements(data, part.num_rows), start=part.first):
        yield f"entry {number}", value


def _open(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(
            f"{path} was to be converted and cannot be read: {error.strerror}. "
            "Make it readable, then run the command again."
        ) from error
