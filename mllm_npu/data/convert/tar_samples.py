"""Tar samples: group the files of others' tars by key, up to where a tar is broken."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from mllm_npu.data.convert.source_format import Refusal
from mllm_npu.data.shards import BLOCK, Break, split_name, walk_members
from mllm_npu.errors import DataError

_NO_END = "The tar ends without its end mark."
_SHORT_NAME = 100
"""Longer names are cut in a header and stand in one of their own before it."""
MAX_MEMBER_BYTES = 1024 * 1024 * 1024
# The original's own script keeps the picture's ending in the key: 1.jpg.img and 1.jpg.txt.
_DOUBLE_ENDING = re.compile(
    r"^(?P<key>.+)\.(?:jpe?g|png|webp|bmp|gif|tiff?)\.(?P<extension>img|txt|json|cls)$", re.I
)


@dataclass(slots=True, kw_only=True)
class Sample:
    """Neighbouring files of the same key.

    Args:
        key: what they share.
        contents: extension and bytes of each file in order; an extension may come twice.
        too_large: a file that was not read, empty if there is none.
    """

    key: str
    contents: list[tuple[str, bytes]] = field(default_factory=list)
    too_large: str = ""


def split_loose_name(name: str) -> tuple[str, str] | None:
    """Key and extension of a file, None if it has no two.

    As ``split_name``, and the endings of the original's script are taken apart: ``a.b.jpg.img`` is
    the picture of ``a_b``.
    """
    double = _DOUBLE_ENDING.match(name)
    if double is None:
        return split_name(name)
    folder, slash, key = double["key"].rpartition("/")
    return folder + slash + key.replace(".", "_"), double["extension"].lower()


def read_samples(path: Path) -> Iterator[Sample | Refusal]:
    """Samples of a tar, and what became of files and bytes that belong to none.

    Behind a broken place it goes on at the next whole file. The sample before the break is refused
    as well, unless the file that is lost is known to be none of its own.

    Raises:
        DataError: if the tar cannot be opened.
    """
    sample: Sample | None = None
    for found in _members(path):
        if isinstance(found, _Gap):
            if sample is not None:
                yield _whole(sample) if found.is_behind(sample.key) else _cut(sample)
                sample = None
            yield found.refusal
            continue
        name, content = found
        parts = split_loose_name(name)
        if parts is None:
            yield Refusal(reason="file without key or extension", at=name)
            continue
        if sample is None or sample.key != parts[0]:
            if sample is not None:
                yield _whole(sample)
            sample = Sample(key=parts[0])
        sample.contents.append((parts[1], content or b""))
        if content is None:
            sample.too_large = name
    if sample is not None:
        yield _whole(sample)


def _whole(sample: Sample) -> Sample | Refusal:
    if sample.too_large:
        return Refusal(reason="file too large", at=sample.key, detail=sample.too_large)
    return sample


def _cut(sample: Sample) -> Refusal:
    return Refusal(reason="cut off where the tar is broken", at=sample.key)


class _Gap:
    """A broken place, and the file that is lost there where its header can still be read."""

    def __init__(self, found: Break, header: bytes = b"") -> None:
        self.refusal = Refusal(
            reason="tar broken", at=f"byte {found.offset}", detail=found.reason, broken=True
        )
        self.lost: tarfile.TarInfo | None = None
        try:
            self.lost = tarfile.TarInfo.frombuf(header, "utf-8", "replace")
        except tarfile.TarError:
            return

    def is_behind(self, key: str) -> bool:
        """Whether the lost file is known to belong to another sample than this one."""
        if self.lost is None or not self.lost.isreg() or len(self.lost.name) >= _SHORT_NAME:
            return False
        parts = split_loose_name(self.lost.name)
        return parts is not None and parts[0] != key


class _Reader:
    """Reads from a file and remembers whether the last thing it read was empty."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.last = 0
        self.is_blank = False

    def __call__(self, offset: int, count: int) -> bytes:
        self.file.seek(offset)
        data = self.file.read(count)
        self.last, self.is_blank = offset, not data.strip(b"\0")
        return data


def _members(path: Path) -> Iterator[tuple[str, bytes | None] | _Gap]:
    """Names and contents; a tar behind another in the same file is read on."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(
            f"{path} was to be converted and cannot be read: {error.strerror}. "
            "Make it readable, then run the command again."
        ) from error
    with file:
        size, start, read = path.stat().st_size, 0, _Reader(file)
        while start < size:
            breaks: list[Break] = []
            told = 0
            for member in walk_members(read, start, size, breaks=breaks):
                yield from (_Gap(one, read(one.offset, BLOCK)) for one in breaks[told:])
                told = len(breaks)
                fits = member.size <= MAX_MEMBER_BYTES
                yield member.name, read(member.data, member.size) if fits else None
                read.is_blank = False
            ended, start = read.is_blank, read.last
            yield from (_Gap(one, read(one.offset, BLOCK)) for one in breaks[told:])
            if not ended:
                if not breaks:
                    yield _Gap(Break(offset=size, reason=_NO_END))
                return
            while start < size and not read(start, BLOCK).strip(b"\0"):
                start += BLOCK
