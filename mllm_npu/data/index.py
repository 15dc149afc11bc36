"""Index: where each sample of a shard lies and how large it is, beside the shard as safetensors."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mllm_npu.data.companions import find_companion, write_companion
from mllm_npu.data.row import Row
from mllm_npu.data.shard_scan import scan_samples
from mllm_npu.data.shards import Break, ShardReader
from mllm_npu.data.storage import ShardFile, find_shards, open_shard
from mllm_npu.errors import DataError

INDEX_VERSION = "2"
SUFFIX = ".index.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardIndex:
    """What is known of a shard's N samples and their P pictures without reading them.

    Args:
        path: the shard.
        offset: first byte of each sample, int64 [N].
        num_bytes: bytes of each sample, headers and padding included, int64 [N].
        num_pictures: pictures of each sample, int32 [N].
        width: pixels across of each picture as people see it, sample after sample, 0 where it
            cannot be read, int32 [P].
        height: as width, int32 [P].
        num_text_chars: characters of each sample's text, int32 [N].
        breaks: where the tar is broken, so that samples may be missing.
    """

    path: str
    offset: Tensor
    num_bytes: Tensor
    num_pictures: Tensor
    width: Tensor
    height: Tensor
    num_text_chars: Tensor
    breaks: tuple[Break, ...] = ()

    def __len__(self) -> int:
        return int(self.offset.numel())


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexHead:
    """What the head of an index says, without its tensors.

    Args:
        path: the shard.
        num_samples: N.
        num_bytes: size of the shard.
        breaks: as in ``ShardIndex``.
    """

    path: str
    num_samples: int
    num_bytes: int
    breaks: tuple[Break, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexReport:
    """What indexing found.

    Args:
        num_samples: in all shards.
        num_built: shards that had no current index.
        breaks: broken places, as shard and break.
    """

    num_samples: int
    num_built: int
    breaks: tuple[tuple[str, Break], ...]


def find_index(shard: str | Path) -> ShardIndex:
    """Load the index of a shard; build it first if it is missing or the shard has changed since."""
    try:
        return load_index(shard)
    except DataError:
        return build_index(shard)


def find_head(shard: str | Path) -> IndexHead:
    """As ``find_index``, but without reading its tensors; cheap for very many shards."""
    signature = _sign(open_shard(shard))
    path = find_companion(str(shard), SUFFIX)
    if path is not None:
        try:
            with safe_open(path, framework="pt") as file:
                return _to_head(str(shard), file.metadata() or {}, signature)
        except (OSError, SafetensorError, DataError):
            pass
    built = build_index(shard)
    return IndexHead(
        path=str(shard),
        num_samples=len(built),
        num_bytes=int(signature["size"]),
        breaks=built.breaks,
    )


def index_shards(
    patterns: str | Sequence[str],
    progress: Callable[[int, int], None] | None = None,
    *,
    num_workers: int = 0,
) -> IndexReport:
    """Bring the index of every shard that matches up to date; current ones are left alone.

    Args:
        patterns: as in ``find_shards``.
        progress: is told shards done and shards in all.
        num_workers: processes that index; 0 does it in this one.

    Raises:
        DataError: if nothing matches, or a shard cannot be read at all.
    """
    shards = find_shards(patterns)
    stale = [shard for shard in shards if not _is_current(shard)]
    done = len(shards) - len(stale)
    for count, _ in enumerate(_build_all(stale, num_workers), start=done + 1):
        if progress is not None:
            progress(count, len(shards))
    heads = [find_head(shard) for shard in shards]
    return IndexReport(
        num_samples=sum(head.num_samples for head in heads),
        num_built=len(stale),
        breaks=tuple((head.path, one) for head in heads for one in head.breaks),
    )


def load_index(shard: str | Path) -> ShardIndex:
    """Load the index of a shard.

    Raises:
        DataError: if there is no shard or no index, or the index belongs to another state of the
            shard.
    """
    signature = _sign(open_shard(shard))
    path = find_companion(str(shard), SUFFIX)
    if path is None:
        raise DataError(f"Shard {shard} has no index. Run `mllm-npu data index`.")
    try:
        with safe_open(path, framework="pt") as file:
            head = _to_head(str(shard), file.metadata() or {}, signature)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"Shard {shard} has no readable index at {path}. Run `mllm-npu data index`."
        ) from error
    return ShardIndex(path=str(shard), breaks=head.breaks, **tensors)


def build_index(shard: str | Path) -> ShardIndex:
    """Walk a shard once and write its index; broken places are noted, what is whole is kept.

    Raises:
        DataError: if the shard is missing or no tar, or nowhere is room for the index.
    """
    file = open_shard(shard)
    signature = _sign(file)
    breaks: list[Break] = []
    entries = list(scan_samples(file, int(signature["size"]), breaks))
    file.close()
    if breaks and not entries:
        raise DataError(f"Shard {shard} is no tar: {breaks[0].reason}")
    sizes = [size for entry in entries for size in entry.pictures]
    tensors = {
        "offset": torch.tensor([entry.start for entry in entries], dtype=torch.int64),
        "num_bytes": torch.tensor([e.end - e.start for e in entries], dtype=torch.int64),
        "num_pictures": torch.tensor([len(e.pictures) for e in entries], dtype=torch.int32),
        "width": torch.tensor([width for width, _ in sizes], dtype=torch.int32),
        "height": torch.tensor([height for _, height in sizes], dtype=torch.int32),
        "num_text_chars": torch.tensor([e.num_chars for e in entries], dtype=torch.int32),
    }
    told = {
        **signature,
        "samples": str(len(entries)),
        "breaks": json.dumps([[one.offset, one.reason] for one in breaks]),
    }
    write_companion(str(shard), SUFFIX, save(tensors, metadata=told))
    return ShardIndex(path=str(shard), breaks=tuple(breaks), **tensors)


def read_rows(shard: str | Path) -> Iterator[Row]:
    """Read all rows of a shard in order, for tools and tests."""
    index, reader = find_index(shard), ShardReader(path=shard)
    for offset, num_bytes in zip(index.offset.tolist(), index.num_bytes.tolist(), strict=True):
        yield reader.read(offset, num_bytes)


def _sign(file: ShardFile) -> dict[str, str]:
    return {"version": INDEX_VERSION, **file.signature()}


def _to_head(shard: str, told: dict[str, str], signature: dict[str, str]) -> IndexHead:
    written = {name: value for name, value in told.items() if name not in ("samples", "breaks")}
    if written != signature:
        raise DataError(
            f"Shard {shard} has changed since its index was written ({written} then, {signature} "
            "now). Run `mllm-npu data index`."
        )
    breaks = tuple(Break(offset=at, reason=why) for at, why in json.loads(told["breaks"]))
    return IndexHead(
        path=shard,
        num_samples=int(told["samples"]),
        num_bytes=int(signature["size"]),
        breaks=breaks,
    )


def _is_current(shard: str) -> bool:
    try:
        load_index(shard)
    except DataError:
        return False
    return True


def _build_all(shards: Sequence[str], num_workers: int) -> Iterator[None]:
    if num_workers < 1 or len(shards) < 2:
        for shard in shards:
            build_index(shard)
            yield
        return
    # Spawned, not forked: this process may hold threads of torch.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(num_workers, len(shards)), mp_context=context) as pool:
        for _ in pool.map(_build, shards):
            yield


def _build(shard: str) -> None:
    """Without what it built, which would be sent between the processes."""
    build_index(shard)
