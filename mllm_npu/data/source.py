"""Source: a weighted set of samples with one meaning, read from indexed shards."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from random import Random

import numpy as np
from numpy.typing import NDArray

from mllm_npu.data.forms import FormTable, FormTotals
from mllm_npu.data.index import IndexHead
from mllm_npu.data.row import Row
from mllm_npu.data.row_forms import RowForms
from mllm_npu.data.shard_set import ShardSet
from mllm_npu.data.tasks.task import Task
from mllm_npu.errors import ConfigError
from mllm_npu.processing.conversation import Conversation
from mllm_npu.processing.processor import Processor


class SampleSource(ABC):
    """What a loader draws samples from.

    Attributes:
        name: name of the data set, as metrics show it.
        weight: share relative to other sources.
    """

    name: str
    weight: float

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @property
    @abstractmethod
    def shard_sizes(self) -> NDArray[np.int64]:
        """Samples of each shard, int64 [S]; samples are numbered shard after shard."""

    @abstractmethod
    def row(self, index: int) -> Row:
        """The row of a sample."""

    @abstractmethod
    def conversation(self, index: int, rng: Random, form: int | None = None) -> Conversation:
        """The conversation of a sample; pure, so that the same arguments give the same one.

        Raises:
            SkipSample: if the row is not fit for use.
            DataError: if its shard cannot be read at all.
        """

    @abstractmethod
    def forms(self, shard: int, processor: Processor) -> FormTable:
        """What the samples of a shard can become, and how long each is."""

    @abstractmethod
    def totals(self, shard: int, processor: Processor) -> FormTotals:
        """Sums over the forms of a shard."""

    @abstractmethod
    def where(self, index: int) -> str:
        """The shard of a sample, for messages."""

    @abstractmethod
    def fingerprint(self) -> str:
        """What tells the samples and their meaning from others."""

    @property
    def heads(self) -> Sequence[IndexHead]:
        """What is known of each shard; empty for sources without files."""
        return ()


class Source(SampleSource):
    """Samples stored in shards.

    Args:
        name: name of the data set, as metrics show it.
        shards: webdataset tars: paths, globs, brace lists, fsspec URLs, or a list of those.
        task: what the rows mean.
        weight: share relative to other sources.
        cache_rows: whether rows and their decoded pictures stay in memory once used; for small
            data sets.

    Raises:
        ConfigError: if the name is empty or the weight negative.
        DataError: if no shard matches.
    """

    def __init__(
        self,
        *,
        name: str,
        shards: str | Sequence[str],
        task: Task,
        weight: float = 1.0,
        cache_rows: bool = False,
    ) -> None:
        check_source(name, weight)
        self.name = name
        self.weight = weight
        self.task = task
        self._shards = ShardSet(shards=shards, cache_rows=cache_rows)
        self._forms = RowForms(shards=self._shards, task=task)

    def __len__(self) -> int:
        return len(self._shards)

    @property
    def shard_sizes(self) -> NDArray[np.int64]:
        """Samples of each shard."""
        return self._shards.sizes

    @property
    def heads(self) -> Sequence[IndexHead]:
        """What is known of each shard."""
        return self._shards.heads

    def row(self, index: int) -> Row:
        """The row of a sample."""
        return self._shards.row(index)

    def conversation(self, index: int, rng: Random, form: int | None = None) -> Conversation:
        """The conversation of a sample, named after this source."""
        return self.task.to_conversation(self.row(index), rng, form).named(self.name)

    def forms(self, shard: int, processor: Processor) -> FormTable:
        """The kept forms of a shard; measured, and kept beside it, where there are none."""
        return self._forms.table(shard, processor)

    def totals(self, shard: int, processor: Processor) -> FormTotals:
        """Sums over the forms of a shard."""
        return self._forms.totals(shard, processor)

    def where(self, index: int) -> str:
        """The shard of a sample."""
        return self._shards.path(index)

    def fingerprint(self) -> str:
        """Shards and task."""
        return f"{self._shards.fingerprint()}{self.task.meaning}"


def check_source(name: str, weight: float) -> None:
    """Refuse a source that batches could not name or plans could not weigh.

    Raises:
        ConfigError: if the name is empty, or the weight negative or not finite.
    """
    if not name:
        raise ConfigError("A source without a name was asked for. Give it one; metrics show it.")
    if weight < 0 or not math.isfinite(weight):
        raise ConfigError(f"Source {name!r} has the weight {weight}. Use 0 or more.")
