"""Shard lengths: tokens, target tokens, tiles and picture sizes of a shard's samples in any form.

Shape letters: N samples, F forms, P pictures, n samples asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mllm_npu.data.forms import FormTable
from mllm_npu.data.index import find_index
from mllm_npu.data.source import SampleSource
from mllm_npu.processing.processor import Processor

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardLengths:
    """What is known of a shard's samples without reading them.

    Args:
        table: their forms.
        tokens: of each form, int64 [F].
        targets: tokens of each form that carry loss, int64 [F].
        tiles: of each form, int64 [F].
        first_picture: number of each sample's first stored picture, int64 [N + 1]; None where no
            pictures are stored, as in sources that draw theirs.
        pictures: width and height of the stored pictures, 0 where unreadable, int64 [P, 2].
    """

    table: FormTable
    tokens: Integers
    targets: Integers
    tiles: Integers
    first_picture: Integers | None
    pictures: Integers

    @classmethod
    def of(cls, source: SampleSource, shard: int, processor: Processor) -> ShardLengths:
        """The lengths of a shard; measured, and kept beside it, where that was never done."""
        table = source.forms(shard, processor)
        first, pictures = _read_sizes(source, shard)
        return cls(
            table=table,
            tokens=table.tokens(processor.length_rule, processor.any_resolution),
            targets=table.targets(processor.length_rule),
            tiles=table.tiles(processor.any_resolution),
            first_picture=first,
            pictures=pictures,
        )

    def has_form(self, samples: Integers) -> NDArray[np.bool_]:
        """Which of the samples [n] can become anything at all."""
        return self.table.first[samples + 1] > self.table.first[samples]

    def picture_sizes(self, samples: Integers, forms: Integers) -> Integers:
        """Width and height of the pictures of samples [n].

        All stored ones; where none are stored, those that the chosen forms [n] read.
        """
        if self.first_picture is not None:
            return self.pictures[_ranges(self.first_picture, samples)]
        numbers = (self.table.first[samples] + forms)[self.has_form(samples)]
        return self.table.reads[_ranges(self.table.first_read, numbers)]


def _read_sizes(source: SampleSource, shard: int) -> tuple[Integers | None, Integers]:
    none = np.empty((0, 2), dtype=np.int64)
    if not source.heads:
        return None, none
    index = find_index(source.heads[shard].path)
    if not index.width.numel():
        return None, none
    counts = index.num_pictures.numpy().astype(np.int64)
    sizes = np.stack([index.width.numpy(), index.height.numpy()], axis=1).astype(np.int64)
    return np.concatenate([[0], np.cumsum(counts)]), sizes


def _ranges(first: Integers, numbers: Integers) -> Integers:
    """All of first[k] .. first[k + 1] for each k of the numbers, end to end."""
    begins, counts = first[numbers], first[numbers + 1] - first[numbers]
    before = np.cumsum(counts) - counts
    return np.repeat(begins - before, counts) + np.arange(counts.sum())
