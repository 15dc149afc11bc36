"""Shard scan: walk a tar once, and note of each sample where it lies and how large it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mllm_npu.data.row import is_picture_name, measure_picture
from mllm_npu.data.shards import BLOCK, Break, Member, split_name, walk_members
from mllm_npu.data.storage import ShardFile
from mllm_npu.errors import SkipSample

_PICTURE_HEAD = 32768
"""Bytes of a picture that are enough to learn its size, but for those with large notes in front."""


@dataclass(slots=True, kw_only=True)
class ScannedSample:
    """Where a sample lies and what is in it.

    Args:
        key: what its members share.
        start: byte of its first header.
        end: byte behind its last member's padding.
        pictures: width and height of each picture, zeros where it cannot be read.
        num_chars: characters of its texts.
    """

    key: str
    start: int
    end: int
    pictures: list[tuple[int, int]]
    num_chars: int


def scan_samples(file: ShardFile, size: int, breaks: list[Break]) -> Iterator[ScannedSample]:
    """Group neighbouring members of the same key; everything else in the tar is passed over.

    Args:
        file: the shard.
        size: its bytes.
        breaks: takes the places where it is broken.
    """
    entry: ScannedSample | None = None
    for member in walk_members(file.walk, 0, size, breaks=breaks):
        parts = split_name(member.name)
        if parts is None:
            continue
        if entry is None or entry.key != parts[0]:
            if entry:
                yield entry
            entry = ScannedSample(
                key=parts[0], start=member.start, end=member.end, pictures=[], num_chars=0
            )
        _note_content(entry, parts[1], file, member)
        entry.end = member.end
    if entry:
        yield entry
    if not breaks and (not size or file.walk(max(size - BLOCK, 0), BLOCK).strip(b"\0")):
        reason = "The tar ends without its end mark. Make it again."
        breaks.append(Break(offset=size, reason=reason))


def _note_content(entry: ScannedSample, extension: str, file: ShardFile, member: Member) -> None:
    if is_picture_name(extension):
        entry.pictures.append(_measure(file, member))
    elif extension == "txt":
        entry.num_chars += len(file.walk(member.data, member.size).decode(errors="replace"))
    elif extension == "json":
        try:
            entry.num_chars += _count_chars(json.loads(file.walk(member.data, member.size)))
        except (ValueError, RecursionError):
            return


def _measure(file: ShardFile, member: Member) -> tuple[int, int]:
    """Size of a picture, from its head if that is enough; zeros where it cannot be read."""
    for count in (min(member.size, _PICTURE_HEAD), member.size):
        try:
            return measure_picture(file.walk(member.data, count))
        except SkipSample:
            if count == member.size:
                break
    return 0, 0


def _count_chars(value: Any) -> int:
    match value:
        case str():
            return len(value)
        case list():
            return sum(_count_chars(item) for item in value)
        case dict():
            return sum(_count_chars(item) for item in value.values())
    return 0
