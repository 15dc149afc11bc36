"""Plan stats: what a plan holds in numbers, from lengths alone; nothing is decoded for it.

Shape letters: n samples of a window, p packs of a window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllm_npu.data.inspect.distribution import Distribution
from mllm_npu.data.inspect.shard_lengths import ShardLengths
from mllm_npu.data.inspect.source_stats import BrokenPlace, PlannedSamples, SourceStats
from mllm_npu.data.pack import PlannedWindow
from mllm_npu.data.plan import Plan
from mllm_npu.errors import ConfigError

FEW_WINDOWS = 4
"""Windows that are counted unless more are asked for; each is some thousand samples."""
_KEPT_SHARDS = 256

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanStats:
    """Windows of an epoch in numbers.

    Args:
        epoch: of the plan.
        num_windows: that were counted, from the first one on.
        windows_in_epoch: all of them.
        samples_in_epoch: likewise.
        max_tokens_per_pack: budget of tokens.
        max_tiles_per_pack: budget of tiles; None for no limit.
        sources: data sets in the order of the plan.
        pack_samples: planned samples of a pack.
        pack_tokens: tokens of the samples of a pack that fit.
        pack_tiles: tiles likewise.
    """

    epoch: int
    num_windows: int
    windows_in_epoch: int
    samples_in_epoch: int
    max_tokens_per_pack: int
    max_tiles_per_pack: int | None
    sources: tuple[SourceStats, ...]
    pack_samples: Distribution = field(default_factory=Distribution)
    pack_tokens: Distribution = field(default_factory=Distribution)
    pack_tiles: Distribution = field(default_factory=Distribution)

    @property
    def num_samples(self) -> int:
        """Planned samples that were counted."""
        return sum(source.num_planned for source in self.sources)

    @property
    def num_packs(self) -> int:
        """Packs that were counted."""
        return self.pack_samples.num

    @property
    def padding(self) -> float:
        """Share of all budgets of tokens that no sample fills."""
        return 1 - self.pack_tokens.total / max(self.num_packs * self.max_tokens_per_pack, 1)

    @property
    def tile_spread(self) -> float:
        """Standard deviation of a pack's tiles over their mean: how unequal the ranks' work is."""
        return self.pack_tiles.std / (self.pack_tiles.mean or 1.0)

    def shares(self, source: SourceStats) -> dict[str, float]:
        """What a data set has of all samples, tokens and tokens that carry loss."""
        tokens = sum(other.num_packed_tokens for other in self.sources)
        targets = sum(other.num_packed_targets for other in self.sources)
        return {
            "samples": source.num_planned / max(self.num_samples, 1),
            "tokens": source.num_packed_tokens / max(tokens, 1),
            "target_tokens": source.num_packed_targets / max(targets, 1),
        }

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "epoch": self.epoch,
            "windows": self.num_windows,
            "windows_in_epoch": self.windows_in_epoch,
            "samples": self.num_samples,
            "samples_in_epoch": self.samples_in_epoch,
            "packs": self.num_packs,
            "samples_per_pack": round(self.pack_samples.mean, 3),
            "tokens_per_pack": {
                "limit": self.max_tokens_per_pack,
                **self.pack_tokens.to_json(),
            },
            "padding": round(self.padding, 5),
            "tiles_per_pack": {
                "limit": self.max_tiles_per_pack,
                **self.pack_tiles.to_json(),
                "std": round(self.pack_tiles.std, 3),
                "std_over_mean": round(self.tile_spread, 5),
            },
            "sources": {
                source.name: {
                    **source.to_json(),
                    "share": {name: round(s, 5) for name, s in self.shares(source).items()},
                }
                for source in self.sources
            },
        }


def count_plan(
    plan: Plan,
    *,
    epoch: int = 0,
    windows: int | None = FEW_WINDOWS,
    progress: Callable[[int, int], None] | None = None,
) -> PlanStats:
    """Count the first windows of an epoch.

    Args:
        plan: what is trained.
        epoch: of the plan.
        windows: how many; None for all.
        progress: is told windows done and windows in all.

    Raises:
        ConfigError: if no window was asked for.
        DataError: if a shard whose rows were never measured cannot be read.
    """
    in_epoch = plan.num_windows(epoch)
    if windows is not None and windows < 1:
        raise ConfigError(f"windows={windows} was asked for. Count 1 or more, or all of them.")
    stats = PlanStats(
        epoch=epoch,
        num_windows=in_epoch if windows is None else min(windows, in_epoch),
        windows_in_epoch=in_epoch,
        samples_in_epoch=plan.samples_per_epoch,
        max_tokens_per_pack=plan.tokens_per_pack,
        max_tiles_per_pack=plan.tiles_per_pack,
        sources=tuple(
            SourceStats(
                name=source.name,
                num_shards=len(source.shard_sizes),
                num_samples=len(source),
                breaks=tuple(
                    BrokenPlace(shard=head.path, offset=one.offset, reason=one.reason)
                    for head in source.heads
                    for one in head.breaks
                ),
            )
            for source in plan.sources
        ),
    )
    counter = _Counter(plan, stats)
    for number in range(stats.num_windows):
        counter.count(plan.window(epoch, number))
        if progress is not None:
            progress(number + 1, stats.num_windows)
    return stats


class _Counter:
    """Adds windows of a plan to stats."""

    def __init__(self, plan: Plan, stats: PlanStats) -> None:
        self._plan = plan
        self._stats = stats
        self._ends = [np.cumsum(source.shard_sizes) for source in plan.sources]
        self._lengths = lru_cache(maxsize=_KEPT_SHARDS)(self._measure)

    def count(self, window: PlannedWindow) -> None:
        """Add a window."""
        picks_n4 = np.array(
            [pick for pack in window.packs for pick in pack], dtype=np.int64
        ).reshape(-1, 4)
        sizes_p = np.array([len(pack) for pack in window.packs], dtype=np.int64)
        kept_n2 = np.zeros((len(picks_n4), 2), dtype=np.int64)
        for source in np.unique(picks_n4[:, 0]).tolist():
            is_its = picks_n4[:, 0] == source
            kept_n2[is_its] = self._count_source(source, picks_n4[is_its])
        pack_n = np.repeat(np.arange(len(sizes_p)), sizes_p)
        self._stats.pack_samples.add(sizes_p)
        for values_n, total in (
            (kept_n2[:, 0], self._stats.pack_tokens),
            (kept_n2[:, 1], self._stats.pack_tiles),
        ):
            sums = np.bincount(pack_n, weights=values_n, minlength=len(sizes_p))
            total.add(sums.astype(np.int64))

    def _count_source(self, source: int, picks_n4: Integers) -> Integers:
        """Add samples of a data set; gives tokens and tiles of those that fit, [n, 2], else 0."""
        samples, forms = picks_n4[:, 1], picks_n4[:, 3]
        shards = np.searchsorted(self._ends[source], samples, side="right")
        found = np.zeros((len(samples), 4), dtype=np.int64)
        stats = self._stats.sources[source]
        for shard in np.unique(shards).tolist():
            is_here = shards == shard
            lengths = self._lengths(source, shard)
            first = int(self._ends[source][shard] - self._plan.sources[source].shard_sizes[shard])
            places, chosen = samples[is_here] - first, forms[is_here]
            for column, values in enumerate((lengths.tokens, lengths.targets, lengths.tiles)):
                found[is_here, column] = lengths.table.per_sample(values, places, chosen, 0)
            found[is_here, 3] = lengths.has_form(places)
            stats.note_pictures(lengths.picture_sizes(places, chosen))
        tokens, targets, tiles, usable = found.T
        is_usable = usable > 0
        fits = is_usable & self._within_limits(tokens, tiles)
        stats.note(
            PlannedSamples(
                tokens=tokens, targets=targets, tiles=tiles, is_usable=is_usable, fits=fits
            )
        )
        return np.stack([tokens * fits, tiles * fits], axis=1)

    def _within_limits(self, tokens: Integers, tiles: Integers) -> Flags:
        """Samples [n] that neither the processor nor the reader of packs leaves out."""
        longest = min(self._plan.processor.max_tokens, self._plan.tokens_per_pack)
        most_tiles = self._plan.tiles_per_pack
        return (tokens <= longest) & (most_tiles is None or tiles <= most_tiles)

    def _measure(self, source: int, shard: int) -> ShardLengths:
        return ShardLengths.of(self._plan.sources[source], shard, self._plan.processor)
