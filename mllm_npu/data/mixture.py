"""Mixture: how many samples of each source every window of every epoch has.

A source is an endless row of samples (``SampleOrder``). Epoch after epoch takes the next samples of
each row, so a source that gives fewer samples than it has is seen whole over the epochs, and one
that gives more is seen again only after all of it was seen. An epoch is cut into windows of nearly
equal size in which every source has its share; a window is found from a number of samples by
arithmetic alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mllm_npu.errors import ConfigError

PLAN_WINDOW = 8192
"""Samples among which packs are formed; larger fills packs better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A piece of an epoch.

    Args:
        before: samples of the epoch before it.
        starts: place in each source's row from which on it takes samples.
        counts: samples of each source.
    """

    before: int
    starts: tuple[int, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Segment:
    """Part of an epoch under one set of weights."""

    before: int
    starts: tuple[int, ...]
    counts: tuple[int, ...]
    first_window: int
    num_windows: int

    def window(self, number: int) -> Window:
        done = self._done(number)
        until = self._done(number + 1)
        return Window(
            before=self.before + sum(done),
            starts=tuple(start + given for start, given in zip(self.starts, done, strict=True)),
            counts=tuple(after - given for after, given in zip(until, done, strict=True)),
        )

    def _done(self, number: int) -> list[int]:
        return [count * number // self.num_windows for count in self.counts]


class Mixture:
    """Shares of sources over epochs and windows; a pure function of its arguments.

    Args:
        stages: first sample of each stage of the whole run, and the weights of the sources in it;
            the first begins at 0. Weights need not sum to one.
        samples_per_epoch: size of an epoch.
        window: samples of a window, about.

    Raises:
        ConfigError: if the arguments do not fit together.
    """

    def __init__(
        self,
        *,
        stages: Sequence[tuple[int, Sequence[float]]],
        samples_per_epoch: int,
        window: int = PLAN_WINDOW,
    ) -> None:
        if samples_per_epoch < 1:
            raise ConfigError(
                f"samples_per_epoch={samples_per_epoch} was asked for. Use at least 1."
            )
        for _, weights in stages:
            if any(weight < 0 or not math.isfinite(weight) for weight in weights) or not any(
                weights
            ):
                raise ConfigError(
                    f"Weights {list(weights)} were asked for. None may be negative, nor all zero."
                )
        self.samples_per_epoch = samples_per_epoch
        self._stages = list(stages)
        self._window = window
        self._epochs: list[list[_Segment]] = []

    def num_windows(self, epoch: int) -> int:
        """Windows of an epoch."""
        last = self._segments(epoch)[-1]
        return last.first_window + last.num_windows

    def window(self, epoch: int, number: int) -> Window:
        """A window of an epoch."""
        segment = next(
            segment for segment in reversed(self._segments(epoch)) if segment.first_window <= number
        )
        return segment.window(number - segment.first_window)

    def find(self, epoch: int, consumed: int) -> int:
        """Number of the window that holds the sample after ``consumed`` ones."""
        low, high = 0, self.num_windows(epoch) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self.window(epoch, middle).before <= consumed:
                low = middle
            else:
                high = middle - 1
        return low

    def _segments(self, epoch: int) -> list[_Segment]:
        while len(self._epochs) <= epoch:
            starts = (0,) * len(self._stages[0][1])
            if self._epochs:
                last = self._epochs[-1][-1]
                starts = tuple(a + b for a, b in zip(last.starts, last.counts, strict=True))
            self._epochs.append(self._divide(len(self._epochs), starts))
        return self._epochs[epoch]

    def _divide(self, epoch: int, starts: tuple[int, ...]) -> list[_Segment]:
        """Cut an epoch where stages begin."""
        size = self.samples_per_epoch
        begins = [max(begin - epoch * size, 0) for begin, _ in self._stages] + [size]
        segments: list[_Segment] = []
        first_window = 0
        for number, (_, weights) in enumerate(self._stages):
            begin, end = begins[number], min(begins[number + 1], size)
            if end <= begin:
                continue
            counts = tuple(share_out(end - begin, weights))
            num_windows = max(1, round((end - begin) / self._window))
            segments.append(
                _Segment(
                    before=begin,
                    starts=starts,
                    counts=counts,
                    first_window=first_window,
                    num_windows=num_windows,
                )
            )
            starts = tuple(a + b for a, b in zip(starts, counts, strict=True))
            first_window += num_windows
        return segments


def share_out(total: int, weights: Sequence[float]) -> list[int]:
    """Split a number into whole parts by weight; the largest remainders are rounded up."""
    scale = total / sum(weights)
    exact = [weight * scale for weight in weights]
    parts = [int(share) for share in exact]
    by_remainder = sorted(range(len(parts)), key=lambda n: (parts[n] - exact[n], n))
    for number in by_remainder[: total - sum(parts)]:
        parts[number] += 1
    return parts
