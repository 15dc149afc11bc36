"""Pack order: the plan as one endless row of packs over all epochs, and positions in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mllm_npu.data.plan import Pack, plan_epoch
from mllm_npu.data.source import SampleSource

Position = tuple[int, int]
"""Epoch, and packs of that epoch that all ranks together have consumed."""


class PackOrder:
    """Plans epoch after epoch and walks over their packs; keeps no position itself.

    Args:
        sources: data sets with their weights.
        lengths: tokens of every sample of each source, an upper bound.
        tokens_per_pack: budget of a pack.
        seed: of the order.
        samples_per_epoch: None for the sum of the sources' sizes.
    """

    def __init__(
        self,
        *,
        sources: Sequence[SampleSource],
        lengths: Sequence[NDArray[np.int64]],
        tokens_per_pack: int,
        seed: int,
        samples_per_epoch: int | None,
    ) -> None:
        self._names = [source.name for source in sources]
        self._weights = [source.weight for source in sources]
        self._lengths = list(lengths)
        self._tokens_per_pack = tokens_per_pack
        self._seed = seed
        self._samples_per_epoch = samples_per_epoch
        self._plans: dict[int, list[Pack]] = {}

    def plan(self, epoch: int) -> list[Pack]:
        """All packs of an epoch; this one and the one before stay in memory."""
        if epoch not in self._plans:
            self._plans = {number: p for number, p in self._plans.items() if number == epoch - 1}
            self._plans[epoch] = plan_epoch(
                seed=self._seed,
                epoch=epoch,
                sizes=[len(lengths) for lengths in self._lengths],
                weights=self._weights,
                lengths=self._lengths,
                tokens_per_pack=self._tokens_per_pack,
                samples_per_epoch=self._samples_per_epoch,
            )
        return self._plans[epoch]

    def advance(self, position: Position, num_packs: int) -> Position:
        """The position so many packs further; an epoch's end is the next one's start."""
        epoch, consumed = position
        consumed += num_packs
        while consumed >= len(self.plan(epoch)):
            consumed -= len(self.plan(epoch))
            epoch += 1
        return epoch, consumed

    def walk(
        self, position: Position, *, rank: int, world_size: int, epochs: int | None
    ) -> Iterator[Pack]:
        """Packs of one rank from a position on; stops before a step in which some rank has none."""
        while True:
            epoch, number = self.advance(position, rank)
            last, _ = self.advance(position, world_size - 1)
            if epochs is not None and last >= epochs:
                return
            yield self.plan(epoch)[number]
            position = self.advance(position, world_size)

    def fingerprint(self) -> str:
        """What the plan follows from, so that a position is never applied to another plan."""
        digest = hashlib.sha256()
        digest.update(f"{self._seed}/{self._tokens_per_pack}/{self._samples_per_epoch}".encode())
        for name, weight, lengths in zip(self._names, self._weights, self._lengths, strict=True):
            digest.update(f"/{name}/{float(weight)}/".encode())
            digest.update(np.ascontiguousarray(lengths, dtype="<i8").tobytes())
        return digest.hexdigest()[:16]
