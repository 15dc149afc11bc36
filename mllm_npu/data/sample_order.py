"""Sample order: an endless shuffled row of a source's samples, addressed by place.

A source is run through again and again. In each visit its shards come in another order, and inside
a window over that row of shards the samples come in another order. So reads stay within a few
shards at a time, and what is kept in memory grows with the number of shards, not of samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mllm_npu.data.hashing import permutation
from mllm_npu.errors import ConfigError

Integers = NDArray[np.int64]

SHUFFLE_WINDOW = 65536
"""Samples that are shuffled among each other; a source of fewer is shuffled as a whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """n samples of a source.

    Args:
        shard: number of each one's shard, int64 [n].
        place: its place in the shard, int64 [n].
        sample: its number in the source, int64 [n].
        visit: how often the source was run through before, int64 [n].
    """

    shard: Integers
    place: Integers
    sample: Integers
    visit: Integers


class SampleOrder:
    """The order of one source's samples.

    Args:
        shard_sizes: samples of each shard, int64 [S].
        name: of the source; sources of other names have other orders.
        seed: of the run.
        window: samples that are shuffled among each other.

    Raises:
        ConfigError: if the window is not positive.
    """

    def __init__(
        self, *, shard_sizes: Integers, name: str, seed: int, window: int = SHUFFLE_WINDOW
    ) -> None:
        if window < 1:
            raise ConfigError(f"shuffle_window={window} was asked for. Use 1 or more.")
        self.shard_sizes = np.asarray(shard_sizes, dtype=np.int64)
        self.size = int(self.shard_sizes.sum())
        self.window = window
        self._purpose = (seed, "source", name)
        self._first = np.concatenate([[0], np.cumsum(self.shard_sizes)])[:-1]
        self._shards_of = lru_cache(maxsize=2)(self._order_shards)
        self._places_of = lru_cache(maxsize=4)(self._shuffle_window)

    def take(self, start: int, count: int) -> Taken:
        """The samples at places ``start`` up to ``start + count`` of the endless row."""
        pieces = []
        while count > 0:
            visit, place = divmod(start, self.size)
            window, inside = divmod(place, self.window)
            places = self._places_of(visit, window)
            piece = places[inside : inside + count]
            pieces.append(self._locate(visit, piece))
            start, count = start + len(piece), count - len(piece)
        return Taken(
            **{
                field: np.concatenate([getattr(piece, field) for piece in pieces])
                if pieces
                else np.empty(0, dtype=np.int64)
                for field in Taken.__slots__
            }
        )

    def _order_shards(self, visit: int) -> tuple[Integers, Integers]:
        """Shards in the order of a visit, and the place behind each of them in its row, [S]."""
        order = permutation(len(self.shard_sizes), *self._purpose, visit, "shards")
        return order, np.cumsum(self.shard_sizes[order])

    def _shuffle_window(self, visit: int, window: int) -> Integers:
        """Places in the row of shards, in the order of a window of a visit."""
        start = window * self.window
        size = min(self.window, self.size - start)
        return start + permutation(size, *self._purpose, visit, "window", window)

    def _locate(self, visit: int, places: Integers) -> Taken:
        order, ends = self._shards_of(visit)
        position = np.searchsorted(ends, places, side="right")
        shard = order[position]
        place = places - (ends[position] - self.shard_sizes[shard])
        return Taken(
            shard=shard,
            place=place,
            sample=self._first[shard] + place,
            visit=np.full(len(places), visit, dtype=np.int64),
        )
