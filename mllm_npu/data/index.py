"""Index: where each sample of a shard lies and how large it is, beside the shard as safetensors."""

from __future__ import annotations

import glob
import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mllm_npu.data.row import Row, is_picture_name, measure_picture
from mllm_npu.data.shards import BLOCK, ShardReader, split_name, walk_members
from mllm_npu.errors import DataError, SkipSample

INDEX_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardIndex:
    """What is known of a shard's N samples and their P pictures without reading them.

    Args:
        path: the shard.
        offset: first byte of each sample, int64 [N].
        num_bytes: bytes of each sample, headers and padding included, int64 [N].
        num_pictures: pictures of each sample, int32 [N].
        width: pixels of each picture, sample after sample, 0 where it cannot be read, int32 [P].
        height: as width, int32 [P].
        num_text_chars: characters of each sample's text, int32 [N].
    """

    path: str
    offset: Tensor
    num_bytes: Tensor
    num_pictures: Tensor
    width: Tensor
    height: Tensor
    num_text_chars: Tensor

    def __len__(self) -> int:
        return int(self.offset.numel())


def index_path(shard: str | Path) -> Path:
    """Where the index of a shard lies."""
    return Path(f"{shard}.index.safetensors")


def find_index(shard: str | Path) -> ShardIndex:
    """Load the index of a shard; build it first if it is missing or the shard has changed since."""
    try:
        return load_index(shard)
    except DataError:
        return build_index(shard)


def index_shards(pattern: str, progress: Callable[[int, int], None] | None = None) -> int:
    """Bring the index of every shard that matches up to date.

    Args:
        pattern: a path or a glob.
        progress: is told shards done and shards in all.

    Returns:
        Number of samples in them.

    Raises:
        DataError: if nothing matches, or a shard is broken.
    """
    shards = sorted(glob.glob(pattern))
    if not shards:
        raise DataError(f"No shard matches {pattern}. Check the path, and quote a glob.")
    count = 0
    for done, shard in enumerate(shards, start=1):
        count += len(find_index(shard))
        if progress is not None:
            progress(done, len(shards))
    return count


def load_index(shard: str | Path) -> ShardIndex:
    """Load the index of a shard.

    Raises:
        DataError: if there is no shard or no index, or the index belongs to another state of the
            shard.
    """
    signature = _signature(shard)
    path = index_path(shard)
    try:
        with safe_open(path, framework="pt") as file:
            written = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"Shard {shard} has no readable index at {path}. Run `mllm-npu data index`."
        ) from error
    if written != signature:
        raise DataError(
            f"Shard {shard} has changed since {path} was written "
            f"({written} then, {signature} now). "
            "Run `mllm-npu data index`."
        )
    return ShardIndex(path=str(shard), **tensors)


def build_index(shard: str | Path) -> ShardIndex:
    """Walk a shard once and write its index beside it, under a temporary name first.

    Raises:
        DataError: if the shard is missing or broken, or its folder cannot be written.
    """
    signature = _signature(shard)
    entries = list(_scan(Path(shard)))
    sizes = [size for entry in entries for size in entry.pictures]
    tensors = {
        "offset": torch.tensor([entry.start for entry in entries], dtype=torch.int64),
        "num_bytes": torch.tensor([e.end - e.start for e in entries], dtype=torch.int64),
        "num_pictures": torch.tensor([len(e.pictures) for e in entries], dtype=torch.int32),
        "width": torch.tensor([width for width, _ in sizes], dtype=torch.int32),
        "height": torch.tensor([height for _, height in sizes], dtype=torch.int32),
        "num_text_chars": torch.tensor([e.num_chars for e in entries], dtype=torch.int32),
    }
    path = index_path(shard)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(save(tensors, metadata=signature))
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"The index {path} cannot be written: {error}. Make its folder writable."
        ) from error
    return ShardIndex(path=str(shard), **tensors)


def _signature(shard: str | Path) -> dict[str, str]:
    """What tells one state of a shard from another."""
    try:
        state = Path(shard).stat()
    except OSError as error:
        raise DataError(f"Shard {shard} cannot be read: {error.strerror}.") from error
    if not stat.S_ISREG(state.st_mode):
        raise DataError(f"Shard {shard} was asked for and is no file. Give a tar, or a glob.")
    return {
        "version": str(INDEX_VERSION),
        "size": str(state.st_size),
        "modified": str(state.st_mtime_ns),
    }


@dataclass(slots=True, kw_only=True)
class _Entry:
    key: str
    start: int
    end: int
    pictures: list[tuple[int, int]]
    num_chars: int


def _scan(shard: Path) -> Iterator[_Entry]:
    """Group neighbouring members of the same key; everything else in the tar is passed over."""
    entry: _Entry | None = None
    size = shard.stat().st_size
    with shard.open("rb") as file:

        def read(offset: int, count: int) -> bytes:
            file.seek(offset)
            return file.read(count)

        if read(max(size - BLOCK, 0), BLOCK).strip(b"\0"):
            raise DataError(f"Shard {shard}: The tar ends without its end mark. Make it again.")
        try:
            for member in walk_members(read, 0, size):
                parts = split_name(member.name)
                if parts is None:
                    continue
                if entry is None or entry.key != parts[0]:
                    if entry:
                        yield entry
                    entry = _Entry(
                        key=parts[0], start=member.start, end=member.end, pictures=[], num_chars=0
                    )
                _note_content(entry, parts[1], read(member.data, member.size))
                entry.end = member.end
        except DataError as error:
            raise DataError(f"Shard {shard}: {error}") from error
    if entry:
        yield entry


def _note_content(entry: _Entry, extension: str, content: bytes) -> None:
    if is_picture_name(extension):
        try:
            entry.pictures.append(measure_picture(content))
        except SkipSample:
            entry.pictures.append((0, 0))
    elif extension == "txt":
        entry.num_chars += len(content.decode(errors="replace"))
    elif extension == "json":
        try:
            entry.num_chars += _count_chars(json.loads(content))
        except ValueError:
            return


def _count_chars(value: Any) -> int:
    match value:
        case str():
            return len(value)
        case list():
            return sum(_count_chars(item) for item in value)
        case dict():
            return sum(_count_chars(item) for item in value.values())
    return 0


def read_rows(shard: str | Path) -> Iterator[Row]:
    """Read all rows of a shard in order, for tools and tests."""
    index, reader = find_index(shard), ShardReader(path=shard)
    for offset, num_bytes in zip(index.offset.tolist(), index.num_bytes.tolist(), strict=True):
        yield reader.read(offset, num_bytes)
