"""JSON array: walk a large file of one array value by value, holding little of it in memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm_npu.errors import DataError

MAX_VALUE_CHARS = 256 * 1024 * 1024
_CHUNK = 1024 * 1024
_MARK = b"\xef\xbb\xbf"
_BETWEEN = re.compile(r"[ \t\r\n,]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """A value of an array and where it stands in the file, in bytes."""

    start: int
    end: int
    value: Any


def is_array(path: Path) -> bool:
    """Whether a file holds one JSON array; False for a missing or unreadable one, too."""
    try:
        with path.open("rb") as file:
            return file.read(256).removeprefix(_MARK).lstrip()[:1] == b"["
    except OSError:
        return False


def walk_array(path: Path) -> Iterator[Element]:
    """Every value of the array in a file.

    Raises:
        DataError: where it is broken, after everything in front of that place.
    """
    to_text = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        offset = file.read(256).index(b"[") + 1
        file.seek(offset)
        text, position, wanted, ended = "", 0, _CHUNK, False
        while True:
            begin = _end_of_blanks(text, position)
            offset, position = offset + begin - position, begin
            if text[position : position + 1] == "]":
                return
            found = _decode(text, position)
            if found is not None:
                value, end = found
                size = len(text[position:end].encode())
                yield Element(start=offset, end=offset + size, value=value)
                offset, position, wanted = offset + size, end, _CHUNK
                continue
            if ended or len(text) - position > MAX_VALUE_CHARS:
                raise DataError(f"JSON array broken at byte {offset}")
            more = file.read(wanted)
            ended, wanted = not more, 2 * wanted
            try:
                text, position = text[position:] + to_text.decode(more, final=ended), 0
            except UnicodeDecodeError as error:
                raise DataError(f"JSON array not UTF-8 behind byte {offset}") from error


def read_elements(data: bytes, count: int) -> Iterator[Any]:
    """So many values of a piece of an array that ``walk_array`` found whole."""
    text, position = data.decode(), 0
    decoder = json.JSONDecoder()
    for _ in range(count):
        value, position = decoder.raw_decode(text, _end_of_blanks(text, position))
        yield value


def _end_of_blanks(text: str, position: int) -> int:
    found = _BETWEEN.match(text, position)
    return found.end() if found else position


def _decode(text: str, position: int) -> tuple[Any, int] | None:
    """A value and its end, None if it is not complete."""
    try:
        return json.JSONDecoder().raw_decode(text, position)
    except (ValueError, RecursionError):
        return None
