"""Source stats: one data set of a plan in numbers, filled window by window.

Shape letters: n samples.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllm_npu.data.inspect.distribution import Distribution

Integers = NDArray[np.int64]
Size = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSamples:
    """Samples of one data set in a window, int64 or bool [n] each.

    Args:
        tokens: planned length.
        targets: tokens that carry loss.
        tiles: tiles that the vision encoder sees.
        is_usable: whether it can become anything at all.
        fits: whether it can, and is within the limits of a sample and of a pack.
    """

    tokens: Integers
    targets: Integers
    tiles: Integers
    is_usable: NDArray[np.bool_]
    fits: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenPlace:
    """Where a shard is broken, so that samples are missing.

    Args:
        shard: its path.
        offset: byte in it.
        reason: what is wrong there.
    """

    shard: str
    offset: int
    reason: str


@dataclass(slots=True, kw_only=True)
class SourceStats:
    """One data set.

    Args:
        name: of the data set.
        num_shards: all of them.
        num_samples: in all shards.
        breaks: broken places of its shards.
        num_planned: samples that were counted.
        num_unusable: those of them without a form, such as rows that are broken or filtered.
        num_over_limit: those with a form whose planned length passes a limit.
        tokens: planned lengths of samples with a form.
        targets: tokens that carry loss, likewise.
        tiles: likewise.
        num_packed_tokens: tokens of the samples that fit.
        num_packed_targets: tokens that carry loss, likewise.
        picture_sizes: how often each size was seen.
        num_unread_pictures: pictures whose size cannot be read.
    """

    name: str
    num_shards: int
    num_samples: int
    breaks: tuple[BrokenPlace, ...] = ()
    num_planned: int = 0
    num_unusable: int = 0
    num_over_limit: int = 0
    tokens: Distribution = field(default_factory=Distribution)
    targets: Distribution = field(default_factory=Distribution)
    tiles: Distribution = field(default_factory=Distribution)
    num_packed_tokens: int = 0
    num_packed_targets: int = 0
    picture_sizes: Counter[Size] = field(default_factory=Counter)
    num_unread_pictures: int = 0

    def note(self, samples: PlannedSamples) -> None:
        """Count planned samples."""
        is_usable, fits = samples.is_usable, samples.fits
        self.num_planned += len(is_usable)
        self.num_unusable += int((~is_usable).sum())
        self.num_over_limit += int((is_usable & ~fits).sum())
        self.tokens.add(samples.tokens[is_usable])
        self.targets.add(samples.targets[is_usable])
        self.tiles.add(samples.tiles[is_usable])
        self.num_packed_tokens += int(samples.tokens[fits].sum())
        self.num_packed_targets += int(samples.targets[fits].sum())

    def note_pictures(self, sizes: Integers) -> None:
        """Count widths and heights of pictures, int64 [n, 2]; 0 is one that cannot be read."""
        found, times = np.unique(sizes, axis=0, return_counts=True)
        for (width, height), count in zip(found.tolist(), times.tolist(), strict=True):
            if width and height:
                self.picture_sizes[width, height] += count
            else:
                self.num_unread_pictures += count

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values but for its shares of a plan."""
        return {
            "shards": self.num_shards,
            "samples": self.num_samples,
            "planned": self.num_planned,
            "unusable": self.num_unusable,
            "over_limit": self.num_over_limit,
            "tokens": self.tokens.to_json(),
            "target_tokens": self.targets.to_json(),
            "tiles": self.tiles.to_json(),
            "pictures": sum(self.picture_sizes.values()),
            "unread_pictures": self.num_unread_pictures,
            "resolutions": [
                {"width": list(width), "height": list(height), "count": count}
                for (width, height), count in sorted(bin_sizes(self.picture_sizes).items())
            ],
            "breaks": [
                {"shard": place.shard, "offset": place.offset, "reason": place.reason}
                for place in self.breaks
            ],
        }


def bin_sizes(sizes: Mapping[Size, int]) -> dict[tuple[Size, Size], int]:
    """Counts by range of width and range of height; a range is [from, to), two to a doubling."""
    bins: Counter[tuple[Size, Size]] = Counter()
    for (width, height), count in sizes.items():
        bins[_range(width), _range(height)] += count
    return dict(bins)


def _range(pixels: int) -> Size:
    step = math.floor(2 * math.log2(pixels))
    low, high = _edge(step), _edge(step + 1)
    return (high, _edge(step + 2)) if pixels >= high else (low, high)


def _edge(step: int) -> int:
    """Smallest whole number of pixels from that half doubling on."""
    return math.ceil(round(2 ** (step / 2), 6))
