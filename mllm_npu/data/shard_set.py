"""Shard set: the samples of several shards under one running number."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllm_npu.data.index import IndexHead, find_head, find_index
from mllm_npu.data.row import Row
from mllm_npu.data.shards import ShardReader
from mllm_npu.data.storage import find_shards, open_shard

_KEPT_SPANS = 128
"""Shards whose samples' places stay in memory."""

Integers = NDArray[np.int64]


class ShardSet:
    """Samples of shards, read one at a time; what stays in memory grows with the shards.

    Args:
        shards: patterns as in ``find_shards``: paths, globs, brace lists, URLs.
        cache_rows: whether rows and their decoded pictures stay in memory once used; for small
            data sets.

    Attributes:
        heads: what is known of each shard, in the order of their names.
        sizes: samples of each shard, int64 [S].

    Raises:
        DataError: if nothing matches or a shard cannot be indexed.
    """

    def __init__(self, *, shards: str | Sequence[str], cache_rows: bool = False) -> None:
        self.heads: list[IndexHead] = [find_head(path) for path in find_shards(shards)]
        counts = [head.num_samples for head in self.heads]
        self.sizes = np.array(counts, dtype=np.int64)
        self._ends = list(itertools.accumulate(counts))
        self._readers = [ShardReader(path=head.path) for head in self.heads]
        self._cache: dict[int, Row] | None = {} if cache_rows else None
        self._spans = lru_cache(maxsize=_KEPT_SPANS)(self._load_spans)

    def __len__(self) -> int:
        return self._ends[-1]

    def row(self, index: int) -> Row:
        """Read a row.

        Raises:
            IndexError: if there is no such sample.
            DataError: if its shard cannot be read.
            SkipSample: if it is broken.
        """
        if self._cache is not None and index in self._cache:
            return self._cache[index]
        shard, place = self.locate(index)
        offsets, sizes = self._spans(shard)
        row = self._readers[shard].read(int(offsets[place]), int(sizes[place]))
        if self._cache is not None:
            row = self._cache[index] = replace(row, kept={})
        return row

    def locate(self, index: int) -> tuple[int, int]:
        """The shard that holds a sample, and its place there.

        Raises:
            IndexError: if there is no such sample.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"Sample {index} was asked for, there are {len(self)}.")
        shard = bisect.bisect_right(self._ends, index)
        return shard, index - (self._ends[shard - 1] if shard else 0)

    def first(self, shard: int) -> int:
        """Number of a shard's first sample."""
        return self._ends[shard - 1] if shard else 0

    def path(self, index: int) -> str:
        """The shard that holds a sample."""
        return self.heads[self.locate(index)[0]].path

    def signature(self, shard: int) -> dict[str, str]:
        """What tells the present state of a shard from another."""
        return open_shard(self.heads[shard].path).signature()

    def fingerprint(self) -> list[tuple[str, int, int]]:
        """Name, bytes and samples of each shard; the same wherever the shards lie."""
        return [
            (head.path.rsplit("/", 1)[-1], head.num_bytes, head.num_samples) for head in self.heads
        ]

    def close(self) -> None:
        """Give all files back; the next read opens them again."""
        for reader in self._readers:
            reader.close()

    def _load_spans(self, shard: int) -> tuple[Integers, Integers]:
        index = find_index(self.heads[shard].path)
        return index.offset.numpy(), index.num_bytes.numpy()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_spans"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._spans = lru_cache(maxsize=_KEPT_SPANS)(self._load_spans)
