"""A source of very many samples whose lengths are made up when they are asked for."""

from __future__ import annotations

from random import Random

import numpy as np
from numpy.typing import NDArray

from mllm_npu.data.forms import FormTable, FormTotals
from mllm_npu.data.hashing import hash_numbers
from mllm_npu.data.row import Row
from mllm_npu.data.source import SampleSource
from mllm_npu.processing.conversation import Conversation
from mllm_npu.processing.processor import Processor


class SimulatedSource(SampleSource):
    """Captions that are read or drawn, as an index would tell of them.

    Args:
        num_shards: shards.
        shard_size: samples of each.
    """

    def __init__(self, *, num_shards: int, shard_size: int) -> None:
        self.name, self.weight = "simulated", 1.0
        self._sizes = np.full(num_shards, shard_size, dtype=np.int64)

    def __len__(self) -> int:
        return int(self._sizes.sum())

    @property
    def shard_sizes(self) -> NDArray[np.int64]:
        """Samples of each shard."""
        return self._sizes

    def forms(self, shard: int, processor: Processor) -> FormTable:
        """Two forms for each sample, with a caption of 8 to 71 tokens."""
        count = int(self._sizes[shard])
        caption = 8 + (hash_numbers(np.arange(count), "caption", shard) % np.uint64(64)).astype(
            np.int64
        )
        read = np.arange(2 * count) % 2 == 0
        return FormTable(
            first=np.arange(count + 1) * 2,
            share=np.where(read, 0.1, 0.9),
            text=np.repeat(caption, 2),
            learnt=np.where(read, np.repeat(caption, 2), 0),
            turns=np.zeros((2 * count, 3), dtype=np.int64),
            drawn=np.where(read, 0, 1),
            first_read=np.concatenate([[0], np.cumsum(read)]),
            reads=np.tile([640, 480], (count, 1)),
        )

    def totals(self, shard: int, processor: Processor) -> FormTotals:
        """Sums of the forms."""
        return self.forms(shard, processor).totals()

    def row(self, index: int) -> Row:
        """There are no rows."""
        raise NotImplementedError

    def conversation(self, index: int, rng: Random, form: int | None = None) -> Conversation:
        """There are no conversations."""
        raise NotImplementedError

    def where(self, index: int) -> str:
        """Nowhere."""
        return "simulated"

    def fingerprint(self) -> str:
        """Number of samples."""
        return f"simulated {len(self)}"
