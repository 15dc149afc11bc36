"""Measure: count the tokens of every row of a data set ahead of a run, and keep them."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from mllm_npu.data.forms import FormTotals
from mllm_npu.data.source import SampleSource
from mllm_npu.processing.processor import Processor

Place = tuple[int, int]
"""Numbers of a source and of one of its shards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a source holds.

    Args:
        name: of the data set.
        num_samples: in its shards.
        num_usable: of them, those that its task can use.
        num_targets: tokens that carry loss in all of them, each form counted by its share.
    """

    name: str
    num_samples: int
    num_usable: int
    num_targets: float


def measure_sources(
    sources: Sequence[SampleSource],
    processor: Processor,
    *,
    num_workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Measured]:
    """Bring the kept lengths of every shard up to date.

    Args:
        sources: data sets.
        processor: counts tokens.
        num_workers: processes that measure; 0 does it in this one.
        progress: is told shards done and shards in all.

    Raises:
        DataError: if a shard cannot be read.
    """
    places = [
        (number, shard)
        for number, source in enumerate(sources)
        for shard in range(len(source.shard_sizes))
    ]
    totals: list[FormTotals] = []
    for found in _measure_all(sources, processor, places, num_workers):
        totals.append(found)
        if progress is not None:
            progress(len(totals), len(places))
    rule = processor.length_rule
    return [
        Measured(
            name=source.name,
            num_samples=len(source),
            num_usable=sum(total.num_samples for total in mine),
            num_targets=round(sum(total.num_targets(rule) for total in mine), 1),
        )
        for number, source in enumerate(sources)
        for mine in [
            [total for (owner, _), total in zip(places, totals, strict=True) if owner == number]
        ]
    ]


def _measure_all(
    sources: Sequence[SampleSource],
    processor: Processor,
    places: Sequence[Place],
    num_workers: int,
) -> Iterator[FormTotals]:
    if num_workers < 1 or len(places) < 2:
        for number, shard in places:
            yield sources[number].totals(shard, processor)
        return
    # Spawned, not forked: this process may hold threads of torch.
    with ProcessPoolExecutor(
        min(num_workers, len(places)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_Worker.begin,
        initargs=(tuple(sources), processor),
    ) as pool:
        yield from pool.map(_Worker.measure, places)


class _Worker:
    """What a process of the pool works with."""

    sources: tuple[SampleSource, ...]
    processor: Processor

    @classmethod
    def begin(cls, sources: tuple[SampleSource, ...], processor: Processor) -> None:
        cls.sources, cls.processor = sources, processor

    @classmethod
    def measure(cls, place: Place) -> FormTotals:
        number, shard = place
        return cls.sources[number].totals(shard, cls.processor)
