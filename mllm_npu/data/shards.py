"""Shards: webdataset tar files, written whole or not at all and read one sample at a time."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mllm_npu.data.row import Row
from mllm_npu.data.storage import open_shard
from mllm_npu.errors import DataError, SkipSample

__all__ = ["Break", "Member", "Row", "ShardReader", "split_name", "walk_members", "write_shard"]

BLOCK = 512
_RECORD = 20 * BLOCK
_REGULAR = (b"0", b"\0", b"7")
_GNU_LONG_NAME = b"L"
_PAX_HEADER = b"x"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Where one file lies in a tar.

    Args:
        name: its path in the tar.
        start: byte of its first header (a long name's own header included).
        data: byte of its content.
        size: bytes of its content.
        end: byte behind its padding.
    """

    name: str
    start: int
    data: int
    size: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """Where a tar is broken.

    Args:
        offset: byte of the header that cannot be used.
        reason: what is wrong with it.
    """

    offset: int
    reason: str


def write_shard(path: str | Path, rows: Iterable[Row]) -> int:
    """Write rows as a webdataset tar under a temporary name, then rename it.

    The same rows give the same bytes: owner, times and modes are fixed.

    Returns:
        Number of rows written.

    Raises:
        DataError: if a key holds a dot, a row has no members or the folder cannot be written.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    num_rows = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(partial, "w", format=tarfile.GNU_FORMAT) as archive:
            for row in rows:
                _add_row(archive, row)
                num_rows += 1
        partial.replace(path)
    except OSError as error:
        raise DataError(
            f"Shard {path} cannot be written: {error}. "
            "Choose a folder that can be written, on a disk with room."
        ) from error
    finally:
        if partial.is_file():
            partial.unlink()
    return num_rows


def _add_row(archive: tarfile.TarFile, row: Row) -> None:
    if "." in row.key.rsplit("/", 1)[-1] or not row.key:
        raise DataError(
            f"A row has the key {row.key!r}, which is empty or holds a dot. Use another key."
        )
    if not row.members:
        raise DataError(f"Row {row.key!r} has no members. Give it at least one.")
    for extension, content in row.members.items():
        entry = tarfile.TarInfo(f"{row.key}.{extension}")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))


def split_name(name: str) -> tuple[str, str] | None:
    """Split a path at the first dot of its file name into key and extension, as webdataset does."""
    folder, slash, file_name = name.rpartition("/")
    key, dot, extension = file_name.partition(".")
    if not dot or not key or not extension:
        return None
    return folder + slash + key, extension.lower()


def walk_members(
    read: Callable[[int, int], bytes], start: int, end: int, *, breaks: list[Break] | None = None
) -> Iterator[Member]:
    """Walk the regular files of a tar between two bytes.

    Args:
        read: gives the bytes at (offset, count).
        start: byte of the first header.
        end: byte to stop before.
        breaks: takes the places where the tar is broken; the walk then goes on at the next whole
            header, and in the next tar of the same file. None refuses a broken tar, and ends with
            the first.

    Raises:
        DataError: if a header is broken or the tar ends inside a file, and ``breaks`` is None.
    """
    offset = first = start
    long_name = ""
    while offset < end:
        header = read(offset, BLOCK)
        if not header.strip(b"\0"):
            following = end if breaks is None else _next_header(read, offset + BLOCK, end)
            if breaks is not None and following < end and not _is_end(offset, following, start):
                reason = f"The tar has a hole from byte {offset} to {following}."
                breaks.append(Break(offset=offset, reason=reason))
            offset = first = following
            continue
        try:
            size, kind, following = _read_header(header, offset, end)
        except DataError as error:
            if breaks is None:
                raise
            breaks.append(Break(offset=offset, reason=str(error)))
            offset = first = _next_header(read, offset + BLOCK, end)
            long_name = ""
            continue
        data = offset + BLOCK
        if kind == _GNU_LONG_NAME:
            long_name = read(data, size).rstrip(b"\0").decode(errors="replace")
        elif kind == _PAX_HEADER:
            long_name = _pax_path(read(data, size)) or long_name
        else:
            if kind in _REGULAR:
                name = long_name or _short_name(header)
                yield Member(name=name, start=first, data=data, size=size, end=following)
            long_name, first = "", following
        offset = following


def _read_members(span: bytes) -> tuple[str, dict[str, bytes]]:
    """Key and members of the one sample in a span of a tar."""
    members: dict[str, bytes] = {}
    key, offset, end = "", 0, len(span)
    try:
        while offset < end:
            header = span[offset : offset + BLOCK]
            if not header.strip(b"\0"):
                return _end_members(span[offset:], key, members)
            size, kind, following = _read_header(header, offset, end)
            if kind not in _REGULAR:
                return _read_named_members(span)
            parts = split_name(_short_name(header))
            if parts:
                key, extension = parts
                members[extension] = span[offset + BLOCK : offset + BLOCK + size]
            offset = following
    except DataError as error:
        raise SkipSample("tar broken inside the sample") from error
    return key, members


def _end_members(rest: bytes, key: str, members: dict[str, bytes]) -> tuple[str, dict[str, bytes]]:
    """What was read before an empty block, unless anything follows it."""
    if rest.strip(b"\0"):
        raise SkipSample("tar broken inside the sample")
    return key, members


def _read_named_members(span: bytes) -> tuple[str, dict[str, bytes]]:
    """As above, for a sample with headers that name the file after them."""
    members: dict[str, bytes] = {}
    key = ""
    for member in walk_members(lambda at, count: span[at : at + count], 0, len(span)):
        parts = split_name(member.name)
        if parts:
            key, extension = parts
            members[extension] = span[member.data : member.data + member.size]
    return key, members


def _is_end(offset: int, following: int, start: int) -> bool:
    """Whether empty blocks are the end mark of a tar with another tar behind it in the same file.

    Source: POSIX ustar: two empty blocks, filled up to a record of twenty blocks.
    """
    length = following - offset
    return 2 * BLOCK <= length < _RECORD + 2 * BLOCK and (following - start) % _RECORD == 0


def _read_header(header: bytes, offset: int, end: int) -> tuple[int, bytes, int]:
    """Size and kind of a header's file, and the byte behind it."""
    if len(header) < BLOCK:
        raise DataError(f"The tar ends inside a header at byte {offset}. Make it again.")
    size = _check_header(header, offset)
    following = offset + BLOCK + (size + BLOCK - 1) // BLOCK * BLOCK
    if following > end:
        raise DataError(f"The tar ends inside the file at byte {offset}. Make it again.")
    return size, header[156:157], following


def _next_header(read: Callable[[int, int], bytes], offset: int, end: int) -> int:
    """Byte of the next whole header of a file that ends inside the tar, or the end."""
    while offset < end:
        header = read(offset, BLOCK)
        if header[257:262] == b"ustar":
            try:
                _read_header(header, offset, end)
            except DataError:
                pass
            else:
                return offset
        offset += BLOCK
    return end


def _check_header(header: bytes, offset: int) -> int:
    """Check a header's sum and give the size of its file in bytes."""
    try:
        expected = int(header[148:156].strip(b"\0 ") or b"0", 8)
        if header[124] & 0x80:
            size = int.from_bytes(header[125:136], "big")
        else:
            size = int(header[124:136].strip(b"\0 ") or b"0", 8)
    except ValueError:
        expected, size = -1, 0
    if expected != sum(header) - sum(header[148:156]) + 8 * ord(" "):
        raise DataError(f"The tar header at byte {offset} is broken. Make it again.")
    return size


def _short_name(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0].decode(errors="replace")
    prefix = b"" if header[257:265] == b"ustar  \0" else header[345:500].split(b"\0", 1)[0]
    return f"{prefix.decode(errors='replace')}/{name}" if prefix else name


def _pax_path(records: bytes) -> str:
    for line in records.split(b"\n"):
        _, _, pair = line.partition(b" ")
        name, _, value = pair.partition(b"=")
        if name == b"path":
            return value.decode(errors="replace")
    return ""


class ShardReader:
    """Reads single samples of one shard by their span; safe to share between forked workers.

    Args:
        path: the tar, a local path or an fsspec URL.
    """

    def __init__(self, *, path: str | Path) -> None:
        self.path = str(path)
        self._file = open_shard(path)

    def read(self, offset: int, num_bytes: int) -> Row:
        """Read the sample that lies in ``num_bytes`` bytes at ``offset``.

        Raises:
            DataError: if the shard is gone or shorter than that.
            SkipSample: if it is broken there.
        """
        span = self._file.read(offset, num_bytes)
        if len(span) != num_bytes:
            raise DataError(
                f"Shard {self.path} ends at byte {offset + len(span)}, its index says "
                f"{offset + num_bytes}. Make the shard again, or run `mllm-npu data index`."
            )
        key, members = _read_members(span)
        if not members:
            raise SkipSample("no sample where the index says")
        return Row(key=key, members=members)

    def close(self) -> None:
        """Give the file back; the next read opens it again."""
        self._file.close()
