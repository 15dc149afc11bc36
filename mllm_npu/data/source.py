"""Source: a weighted set of samples with one meaning, read from indexed shards."""

from __future__ import annotations

import bisect
import glob
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from random import Random

import numpy as np
from numpy.typing import NDArray

from mllm_npu.data.index import find_index
from mllm_npu.data.row import Row
from mllm_npu.data.shards import ShardReader
from mllm_npu.data.tasks.task import Measure, Task
from mllm_npu.errors import ConfigError, DataError, SkipSample
from mllm_npu.processing.conversation import Conversation
from mllm_npu.processing.processor import Processor

UNREADABLE_LENGTH = 1
"""Planned length of a row that cannot be measured; it is skipped when its turn comes."""


class SampleSource(ABC):
    """What a loader draws samples from.

    Attributes:
        name: name of the data set, as metrics show it.
        weight: share of the samples relative to other sources.
    """

    name: str
    weight: float

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abstractmethod
    def row(self, index: int) -> Row:
        """The row of a sample."""

    @abstractmethod
    def conversation(self, index: int, rng: Random) -> Conversation:
        """The conversation of a sample; pure, so that the same rng state gives the same one.

        Raises:
            SkipSample: if the row is not fit for use.
            DataError: if its shard cannot be read at all.
        """

    @abstractmethod
    def lengths(self, processor: Processor) -> NDArray[np.int64]:
        """Tokens of every sample as an upper bound for planning, int64 [number of samples]."""

    @abstractmethod
    def where(self, index: int) -> str:
        """The shard of a sample, for messages."""


class ShardSet:
    """Samples of several shards under one running number.

    Args:
        shards: a path, or a glob such as ``data/digits/caption/train-*.tar``; sorted by name.
        cache_rows: whether rows and their decoded pictures stay in memory once used; for small
            data sets.

    Raises:
        DataError: if nothing matches or a shard cannot be indexed.
    """

    def __init__(self, *, shards: str, cache_rows: bool = False) -> None:
        paths = sorted(glob.glob(shards))
        if not paths:
            raise DataError(
                f"Shards {shards!r} were asked for, no file matches. "
                "Make the data first, or correct the path."
            )
        indexes = [find_index(path) for path in paths]
        self._readers = [ShardReader(path=path) for path in paths]
        self._spans = [
            list(zip(index.offset.tolist(), index.num_bytes.tolist(), strict=True))
            for index in indexes
        ]
        self._ends = list(itertools.accumulate(len(index) for index in indexes))
        self._cache: dict[int, Row] | None = {} if cache_rows else None

    def __len__(self) -> int:
        return self._ends[-1]

    def row(self, index: int) -> Row:
        """Read a row.

        Raises:
            IndexError: if there is no such sample.
            DataError: if its shard cannot be read.
        """
        if self._cache is not None and index in self._cache:
            return self._cache[index]
        shard, place = self._locate(index)
        row = self._readers[shard].read(*self._spans[shard][place])
        if self._cache is not None:
            row = self._cache[index] = replace(row, kept={})
        return row

    def path(self, index: int) -> str:
        """The shard that holds a sample."""
        return self._readers[self._locate(index)[0]].path

    def _locate(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"Sample {index} was asked for, there are {len(self)}.")
        shard = bisect.bisect_right(self._ends, index)
        return shard, index - (self._ends[shard - 1] if shard else 0)


class Source(SampleSource):
    """Samples stored in shards.

    Args:
        name: name of the data set, as metrics show it.
        shards: a path or a glob of webdataset tars.
        task: what the rows mean.
        weight: share of the samples relative to other sources.
        cache_rows: whether rows and their decoded pictures stay in memory once used; for small
            data sets.

    Raises:
        ConfigError: if the name is empty or the weight negative.
        DataError: if no shard matches.
    """

    def __init__(
        self, *, name: str, shards: str, task: Task, weight: float = 1.0, cache_rows: bool = False
    ) -> None:
        check_source(name, weight)
        self.name = name
        self.weight = weight
        self.task = task
        self._shards = ShardSet(shards=shards, cache_rows=cache_rows)

    def __len__(self) -> int:
        return len(self._shards)

    def row(self, index: int) -> Row:
        """The row of a sample."""
        return self._shards.row(index)

    def conversation(self, index: int, rng: Random) -> Conversation:
        """The conversation of a sample, named after this source."""
        return replace(self.task.to_conversation(self.row(index), rng), source=self.name)

    def lengths(self, processor: Processor) -> NDArray[np.int64]:
        """Tokens of every sample as an upper bound."""
        return measure_rows(self.row, len(self), self.task, processor)

    def where(self, index: int) -> str:
        """The shard of a sample."""
        return self._shards.path(index)


def check_source(name: str, weight: float) -> None:
    """Refuse a source that batches could not name or plans could not weigh.

    Raises:
        ConfigError: if the name is empty, or the weight negative or not finite.
    """
    if not name:
        raise ConfigError("A source without a name was asked for. Give it one; metrics show it.")
    if weight < 0 or not math.isfinite(weight):
        raise ConfigError(f"Source {name!r} has the weight {weight}. Use 0 or more.")


def measure_rows(
    read: Callable[[int], Row], count: int, task: Task, processor: Processor
) -> NDArray[np.int64]:
    """Tokens of ``count`` rows in their longest form, int64 [count]."""
    count_tokens = lru_cache(maxsize=None)(partial(_count_tokens, processor))
    lengths = np.empty(count, dtype=np.int64)
    for index in range(count):
        try:
            forms = task.measure(read(index), count_tokens)
        except SkipSample:
            lengths[index] = UNREADABLE_LENGTH
        else:
            lengths[index] = max(_estimate(form, processor) for form in forms)
    return lengths


def _count_tokens(processor: Processor, text: str) -> int:
    return len(processor.tokenizer.encode(text, add_special_tokens=False))


def _estimate(form: Measure, processor: Processor) -> int:
    return processor.estimate_tokens(
        form.num_text_tokens, form.reads, form.num_drawn, num_turns=form.num_turns
    )
