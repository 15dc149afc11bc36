"""Plan: which samples of which sources form which pack, window after window, without reading them.

Everything follows from the configuration and the indexes: equal on every rank and machine, and
found for any window of any epoch without planning those before it.

Shape letters: n samples of a window.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mllm_npu.data.curriculum import Curriculum
from mllm_npu.data.forms import UNREADABLE_LENGTH, FormTable
from mllm_npu.data.hashing import chances, permutation
from mllm_npu.data.mixture import PLAN_WINDOW, Mixture, Window
from mllm_npu.data.pack import Pack, Pick, PlannedWindow
from mllm_npu.data.packing import check_budgets, pack_evenly
from mllm_npu.data.sample_order import SHUFFLE_WINDOW, SampleOrder, Taken
from mllm_npu.data.source import SampleSource
from mllm_npu.errors import ConfigError
from mllm_npu.processing.processor import Processor

Integers = NDArray[np.int64]
Weighing = Literal["samples", "target_tokens"]

_KEPT_SHARDS = 256
"""Shards whose lengths stay in memory; a window touches few at a time."""


class Plan:
    """Mixes, shuffles and packs.

    Args:
        sources: data sets with their weights.
        processor: knows how long texts and pictures get.
        tokens_per_pack: largest sum of tokens in a pack; a longer sample stands alone.
        tiles_per_pack: largest sum of vision tiles in a pack; None for no limit.
        seed: of the run.
        samples_per_epoch: None for the sum of the sources' sizes, which with weights equal to the
            sizes is every sample once.
        weigh_by: what a weight is a share of: samples, or tokens that are learnt.
        curriculum: weights that change by step, instead of the sources' own.
        shuffle_window: samples of a source that are shuffled among each other.
        plan_window: samples among which packs are formed.

    Raises:
        ConfigError: if the arguments do not fit together.
    """

    def __init__(
        self,
        *,
        sources: Sequence[SampleSource],
        processor: Processor,
        tokens_per_pack: int,
        seed: int,
        tiles_per_pack: int | None = None,
        samples_per_epoch: int | None = None,
        weigh_by: Weighing = "samples",
        curriculum: Curriculum | None = None,
        shuffle_window: int = SHUFFLE_WINDOW,
        plan_window: int = PLAN_WINDOW,
    ) -> None:
        check_budgets(tokens_per_pack, tiles_per_pack)
        if plan_window < 1:
            raise ConfigError(f"plan_window={plan_window} was asked for. Use 1 or more.")
        if weigh_by not in ("samples", "target_tokens"):
            raise ConfigError(f"weigh_by={weigh_by} was asked for. Use samples or target_tokens.")
        self.sources = tuple(sources)
        self.processor = processor
        self.tokens_per_pack = tokens_per_pack
        self.tiles_per_pack = tiles_per_pack
        self.seed = seed
        self._orders = [
            SampleOrder(
                shard_sizes=source.shard_sizes,
                name=source.name,
                seed=seed,
                window=shuffle_window,
            )
            for source in self.sources
        ]
        sizes = [order.size for order in self._orders]
        stages = self._weigh(curriculum, weigh_by)
        _check_sizes(self.sources, sizes, stages)
        self._mixture = Mixture(
            stages=stages,
            samples_per_epoch=sum(sizes) if samples_per_epoch is None else samples_per_epoch,
            window=plan_window,
        )
        self._measure = lru_cache(maxsize=_KEPT_SHARDS)(self._measure_shard)
        budgets = (tokens_per_pack, tiles_per_pack, self._mixture.samples_per_epoch)
        self._told = (seed, budgets, weigh_by, shuffle_window, plan_window, stages)

    @property
    def samples_per_epoch(self) -> int:
        """Samples of an epoch."""
        return self._mixture.samples_per_epoch

    def num_windows(self, epoch: int) -> int:
        """Windows of an epoch."""
        return self._mixture.num_windows(epoch)

    def find(self, epoch: int, consumed: int) -> int:
        """The window that holds the sample after ``consumed`` ones of an epoch."""
        return self._mixture.find(epoch, consumed)

    def window(self, epoch: int, number: int) -> PlannedWindow:
        """The packs of a window."""
        window = self._mixture.window(epoch, number)
        picks_n4, tokens_n, tiles_n = self._draw(window, epoch, number)
        groups = pack_evenly(
            tokens_n,
            tiles_n,
            tokens_per_pack=self.tokens_per_pack,
            tiles_per_pack=self.tiles_per_pack,
        )
        order = permutation(len(groups), self.seed, "packs", epoch, number)
        packs = [
            Pack(
                tuple(map(Pick._make, picks_n4[group].tolist())),
                num_tokens=int(tokens_n[group].sum()),
                num_tiles=int(tiles_n[group].sum()),
            )
            for group in (groups[place] for place in order.tolist())
        ]
        return PlannedWindow(before=window.before, packs=packs)

    def fingerprint(self) -> str:
        """What the plan follows from, so that a position is never applied to another plan."""
        digest = hashlib.sha256(repr(self._told).encode())
        digest.update(self.processor.tokenizer_fingerprint.encode())
        rule = self.processor.length_rule
        digest.update(repr(rule).encode())
        if rule.read_picture:
            digest.update(f"/{rule.read_picture}".encode())
        digest.update(repr(self.processor.any_resolution.describe()).encode())
        for source in self.sources:
            digest.update(f"/{source.name}/{source.fingerprint()}".encode())
        return digest.hexdigest()[:16]

    def _draw(self, window: Window, epoch: int, number: int) -> tuple[Integers, Integers, Integers]:
        """The samples of a window, mixed [n, 4], their tokens [n] and tiles [n]."""
        parts = [
            self._draw_source(source, start, count)
            for source, (start, count) in enumerate(zip(window.starts, window.counts, strict=True))
            if count
        ]
        if not parts:
            empty = np.empty(0, dtype=np.int64)
            return np.empty((0, 4), dtype=np.int64), empty, empty
        picks, tokens, tiles = (np.concatenate(column) for column in zip(*parts, strict=True))
        mixed = permutation(len(picks), self.seed, "mix", epoch, number)
        return picks[mixed], tokens[mixed], tiles[mixed]

    def _draw_source(
        self, source: int, start: int, count: int
    ) -> tuple[Integers, Integers, Integers]:
        taken = self._orders[source].take(start, count)
        forms, tokens, tiles = self._measure_taken(source, taken)
        columns = (np.full(count, source), taken.sample, taken.visit, forms)
        return np.stack(columns, axis=1).astype(np.int64), tokens, tiles

    def _measure_taken(self, source: int, taken: Taken) -> tuple[Integers, Integers, Integers]:
        """Form, tokens and tiles of each sample, int64 [n]."""
        drawn = np.empty(len(taken.sample))
        for visit in np.unique(taken.visit).tolist():
            is_visit = taken.visit == visit
            purpose = (self.seed, "form", self.sources[source].name, visit)
            drawn[is_visit] = chances(taken.sample[is_visit], *purpose)
        found = np.empty((3, len(taken.sample)), dtype=np.int64)
        for shard in np.unique(taken.shard).tolist():
            is_here = taken.shard == shard
            table, tokens, tiles = self._measure(source, shard)
            places = taken.place[is_here]
            forms = table.choose(places, drawn[is_here])
            found[0, is_here] = forms
            found[1, is_here] = table.per_sample(tokens, places, forms, UNREADABLE_LENGTH)
            found[2, is_here] = table.per_sample(tiles, places, forms, 0)
        return found[0], found[1], found[2]

    def _measure_shard(self, source: int, shard: int) -> tuple[FormTable, Integers, Integers]:
        """Forms of a shard, and the tokens and tiles of each, int64 [F]."""
        table = self.sources[source].forms(shard, self.processor)
        resolution = self.processor.any_resolution
        return table, table.tokens(self.processor.length_rule, resolution), table.tiles(resolution)

    def _weigh(
        self, curriculum: Curriculum | None, weigh_by: Weighing
    ) -> list[tuple[int, list[float]]]:
        """First sample of each stage, and the sources' shares of samples in it."""
        names = [source.name for source in self.sources]
        if curriculum is None:
            stages = [(0, [source.weight for source in self.sources])]
        else:
            stages = [
                (start, curriculum.weights(number, names))
                for number, start in enumerate(curriculum.starts())
            ]
        if weigh_by == "samples":
            return stages
        means = [self._mean_targets(source) for source in self.sources]
        return [
            (start, [weight / mean for weight, mean in zip(weights, means, strict=True)])
            for start, weights in stages
        ]

    def _mean_targets(self, source: SampleSource) -> float:
        """Learnt tokens of a sample of a source, on average."""
        rule = self.processor.length_rule
        totals = [source.totals(shard, self.processor) for shard in range(len(source.shard_sizes))]
        count = sum(total.num_samples for total in totals)
        mean = sum(total.num_targets(rule) for total in totals) / max(count, 1)
        if count and not mean:
            raise ConfigError(
                f"weigh_by=target_tokens was asked for, and nothing is learnt from {source.name!r}."
                " Use weigh_by=samples."
            )
        return mean or 1.0


def _check_sizes(
    sources: Sequence[SampleSource],
    sizes: Sequence[int],
    stages: Sequence[tuple[int, Sequence[float]]],
) -> None:
    empty = sorted(
        {
            source.name
            for _, weights in stages
            for source, size, weight in zip(sources, sizes, weights, strict=True)
            if weight > 0 and not size
        }
    )
    if empty:
        raise ConfigError(
            f"Sources {empty} have a weight and no samples. Make their shards again, or set their "
            "weight to 0."
        )
