"""Plan an epoch: which samples of which sources form which pack, as a pure function.

A source is an endless stream of permutations of itself. Epoch ``e`` takes the next ``count``
samples of that stream, so a source that gives fewer samples than it has is seen whole over the
epochs, and one that gives more is seen again only after all of it was seen. Equal arguments give
equal plans on every rank and machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mllm_npu.data.packing import pack_evenly
from mllm_npu.errors import ConfigError

PACKING_WINDOW = 1024
"""Samples among which packs are formed; larger fills packs better and shuffles less."""

_Integers = NDArray[np.int64]


class Pick(NamedTuple):
    """One sample of a plan.

    Args:
        source: number of the source.
        sample: its number in the source.
        visit: how often the source was run through before, over all epochs; seeds the sample's
            randomness.
    """

    source: int
    sample: int
    visit: int


Pack = tuple[Pick, ...]


def plan_epoch(
    *,
    seed: int,
    epoch: int,
    sizes: Sequence[int],
    weights: Sequence[float],
    lengths: Sequence[_Integers],
    tokens_per_pack: int,
    samples_per_epoch: int | None = None,
) -> list[Pack]:
    """Mix, shuffle and pack one epoch.

    Args:
        seed: of the run.
        epoch: which one, from 0.
        sizes: samples of each source.
        weights: share of each source in the samples of an epoch; need not sum to one.
        lengths: tokens of each sample, an upper bound, one array per source.
        tokens_per_pack: largest sum of lengths in a pack; a longer sample stands alone.
        samples_per_epoch: None for the sum of the sizes, which with weights equal to the sizes is
            every sample once.

    Raises:
        ConfigError: if the arguments do not fit together.
    """
    _check(sizes, weights, lengths, samples_per_epoch)
    num_samples = sum(sizes) if samples_per_epoch is None else samples_per_epoch
    counts = share_out(num_samples, weights)
    picked = [
        _take(seed=seed, source=source, size=size, start=epoch * count, count=count)
        for source, (size, count) in enumerate(zip(sizes, counts, strict=True))
    ]
    order = np.concatenate(picked)[_permutation(num_samples, seed, "epoch", epoch)]
    tokens = np.concatenate([np.asarray(length, dtype=np.int64) for length in lengths])
    bases = np.cumsum([0, *sizes[:-1]])
    tokens = tokens[bases[order[:, 0]] + order[:, 1]]
    return _pack_windows(order, tokens, tokens_per_pack, purpose=(seed, "packs", epoch))


def share_out(total: int, weights: Sequence[float]) -> list[int]:
    """Split a number into whole parts by weight; the largest remainders are rounded up."""
    scale = total / sum(weights)
    exact = [weight * scale for weight in weights]
    parts = [int(share) for share in exact]
    by_remainder = sorted(range(len(parts)), key=lambda n: (parts[n] - exact[n], n))
    for number in by_remainder[: total - sum(parts)]:
        parts[number] += 1
    return parts


def _check(
    sizes: Sequence[int],
    weights: Sequence[float],
    lengths: Sequence[_Integers],
    samples_per_epoch: int | None,
) -> None:
    if not sizes or not len(sizes) == len(weights) == len(lengths):
        raise ConfigError(
            f"A plan of {len(sizes)} sizes, {len(weights)} weights and {len(lengths)} lengths was "
            "asked for. Give one of each per source, and at least one source."
        )
    if any(size != len(length) for size, length in zip(sizes, lengths, strict=True)):
        raise ConfigError(
            "A source has another number of lengths than of samples. Measure it again."
        )
    if any(weight < 0 for weight in weights) or sum(weights) <= 0:
        raise ConfigError(
            f"Weights {list(weights)} were asked for. None may be negative, nor all zero."
        )
    if any(weight > 0 and size == 0 for size, weight in zip(sizes, weights, strict=True)):
        raise ConfigError(
            "A source with a weight has no samples. Remove it or set its weight to 0."
        )
    if samples_per_epoch is not None and samples_per_epoch < 1:
        raise ConfigError(f"samples_per_epoch={samples_per_epoch} was asked for. Use at least 1.")


def _permutation(size: int, *purpose: str | int) -> _Integers:
    """A permutation of its own for each purpose, the same with every version of every library.

    Source: splitmix64 (Steele, Lea, Flood 2014) as a bijective hash of the places, which are then
        sorted.
    """
    digest = hashlib.sha256("/".join(map(str, purpose)).encode()).digest()
    hashes = np.arange(1, size + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    hashes += np.uint64(int.from_bytes(digest[:8], "big"))
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.argsort(hashes ^ (hashes >> np.uint64(31)), kind="stable")


def _take(*, seed: int, source: int, size: int, start: int, count: int) -> _Integers:
    """Rows (source, sample, visit) from ``start`` on of a source's stream of permutations."""
    if count == 0:
        return np.empty((0, 3), dtype=np.int64)
    visits = range(start // size, (start + count - 1) // size + 1)
    stream = np.concatenate([_permutation(size, seed, "source", source, v) for v in visits])
    first = start - visits[0] * size
    rows = np.empty((count, 3), dtype=np.int64)
    rows[:, 0] = source
    rows[:, 1] = stream[first : first + count]
    rows[:, 2] = np.arange(start, start + count) // size
    return rows


def _pack_windows(
    order: _Integers, tokens: _Integers, tokens_per_pack: int, *, purpose: tuple[str | int, ...]
) -> list[Pack]:
    """Pack window after window; what fills no pack of one goes into the next one."""
    packs: list[Pack] = []
    waiting: list[int] = []
    for start in range(0, len(order), PACKING_WINDOW):
        stop = min(start + PACKING_WINDOW, len(order))
        members = [*waiting, *range(start, stop)]
        lengths = tokens[members].tolist()
        groups, rest = pack_evenly(lengths, tokens_per_pack, is_last=stop == len(order))
        waiting = [members[m] for m in rest]
        for number in _permutation(len(groups), *purpose, start):
            chosen = order[[members[m] for m in groups[number]]].tolist()
            packs.append(tuple(Pick(*row) for row in chosen))
    return packs
