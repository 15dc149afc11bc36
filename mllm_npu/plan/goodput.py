"""Simulate ranks that are slow and ranks that break, to find how often to write a checkpoint.

Shape letters: S steps, R ranks, F failures, I intervals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mllm_npu.errors import ConfigError

Floats = NDArray[np.float64]

STEPS = 2_000
FAILURES = 4_000
INTERVALS = 41
_ROWS = 1 << 22
"""Numbers drawn at once, so that ten thousand ranks need no more memory than a thousand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What a run on many ranks depends on.

    Args:
        ranks: of the run.
        step_seconds: of a step where no rank is slow.
        device_spread: by how much devices differ for good, sigma of the logarithm.
        step_spread: by how much a device's steps differ from each other, sigma of the logarithm.
        failure_seconds: mean time between failures of one device.
        restart_seconds: from a failure until the run trains again.
        write_seconds: until a checkpoint is on the storage.
        block_seconds: of those, that training waits; all of them for synchronous checkpoints.

    Raises:
        ConfigError: numbers no run has.
    """

    ranks: int
    step_seconds: float
    device_spread: float
    step_spread: float
    failure_seconds: float
    restart_seconds: float
    write_seconds: float
    block_seconds: float

    def __post_init__(self) -> None:
        if self.ranks < 1 or min(self.step_seconds, self.failure_seconds) <= 0:
            raise ConfigError(
                f"A simulation was asked for with ranks={self.ranks}, "
                f"step_seconds={self.step_seconds}, failure_seconds={self.failure_seconds}. "
                "Give at least one rank and times above 0."
            )
        if min(self.device_spread, self.step_spread, self.restart_seconds) < 0 or not (
            0 <= self.block_seconds <= self.write_seconds
        ):
            raise ConfigError(
                f"A simulation was asked for with device_spread={self.device_spread}, "
                f"step_spread={self.step_spread}, restart_seconds={self.restart_seconds}, "
                f"block_seconds={self.block_seconds}, write_seconds={self.write_seconds}. "
                "Use 0 or more, and no longer block than write."
            )

    @property
    def mean_between_failures(self) -> float:
        """Seconds between two failures of any device."""
        return self.failure_seconds / self.ranks


@dataclass(frozen=True, slots=True, kw_only=True)
class Goodput:
    """What a simulation has found.

    Args:
        ranks: of the run.
        straggling: mean time of a step, where all wait for the slowest, over one without slow
            ranks.
        slow_step: the same of the step that only one in a hundred exceeds.
        failures_per_day: of the whole run.
        intervals: seconds of training between two checkpoints, ascending.
        goodput: for each, useful time as a share of all; a step without slow ranks is useful.
        best: place of the best of them.
        young: interval of Young's formula, seconds.
        daly: interval of Daly's formula, seconds.
    """

    ranks: int
    straggling: float
    slow_step: float
    failures_per_day: float
    intervals: Sequence[float]
    goodput: Sequence[float]
    best: int
    young: float
    daly: float

    @property
    def best_interval(self) -> float:
        """Seconds of training between two checkpoints that keep most."""
        return self.intervals[self.best]

    @property
    def best_goodput(self) -> float:
        """Useful share of the time at the best interval."""
        return self.goodput[self.best]


def simulate(
    fleet: Fleet,
    *,
    seed: int = 0,
    steps: int = STEPS,
    failures: int = FAILURES,
    checkpoint_every: int | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Goodput:
    """Draw step times and failures, and try checkpoint intervals on the same failures.

    Args:
        fleet: the run.
        seed: of all that is drawn.
        steps: whose slowest rank is drawn.
        failures: that are drawn.
        checkpoint_every: steps of an interval that is tried beside the others.
        progress: is called with the steps drawn and all of them.
    """
    generator = np.random.default_rng(seed)
    factors_S = slowest_factors(fleet, generator, steps, progress=progress)
    step = fleet.step_seconds * float(factors_S.mean())
    gaps_F = generator.exponential(fleet.mean_between_failures, failures)
    young = young_interval(fleet.block_seconds, fleet.mean_between_failures)
    intervals_I = _intervals(fleet, step, young)
    if checkpoint_every is not None:
        intervals_I = np.unique(np.append(intervals_I, checkpoint_every * step))
    kept_I = useful_share(fleet, gaps_F, intervals_I) * fleet.step_seconds / step
    return Goodput(
        ranks=fleet.ranks,
        straggling=step / fleet.step_seconds,
        slow_step=float(np.quantile(factors_S, 0.99)),
        failures_per_day=86400 / fleet.mean_between_failures,
        intervals=intervals_I.tolist(),
        goodput=kept_I.tolist(),
        best=int(kept_I.argmax()),
        young=young,
        daly=daly_interval(fleet.block_seconds, fleet.mean_between_failures),
    )


def slowest_factors(
    fleet: Fleet,
    generator: np.random.Generator,
    steps: int,
    *,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Floats:
    """For each step, how much longer its slowest rank takes than a middling one, [S]."""
    devices_R = generator.normal(0.0, fleet.device_spread, fleet.ranks).astype(np.float32)
    rows = max(1, _ROWS // fleet.ranks)
    slowest = []
    for begin in range(0, steps, rows):
        count = min(rows, steps - begin)
        jitter_SR = generator.standard_normal((count, fleet.ranks), dtype=np.float32)
        slowest.append((devices_R + fleet.step_spread * jitter_SR).max(axis=1))
        progress(begin + count, steps)
    return np.exp(np.concatenate(slowest).astype(np.float64))


def useful_share(fleet: Fleet, gaps_F: Floats, intervals_I: Floats) -> Floats:
    """Share of the time between failures whose work is kept, for each interval, [I].

    A checkpoint counts once it is on the storage. One that is written while training goes on must
    be there before the next one begins.

    Args:
        fleet: the run.
        gaps_F: seconds between two failures.
        intervals_I: seconds of training between two checkpoints.
    """
    behind = fleet.write_seconds - fleet.block_seconds
    cycles_I = np.maximum(intervals_I + fleet.block_seconds, fleet.write_seconds)
    trained_F1 = np.maximum(0.0, gaps_F - fleet.restart_seconds - behind)[:, None]
    kept_FI = np.floor(trained_F1 / cycles_I) * intervals_I
    return kept_FI.sum(axis=0) / gaps_F.sum()


def young_interval(cost: float, mean_between_failures: float) -> float:
    """Seconds of training between checkpoints that cost ``cost``, to first order.

    Source: J. W. Young, A first order approximation to the optimum checkpoint interval, 1974.
    """
    return math.sqrt(2 * cost * mean_between_failures)


def daly_interval(cost: float, mean_between_failures: float) -> float:
    """The same to higher order.

    Source: J. T. Daly, A higher order estimate of the optimum checkpoint interval, 2006.
    """
    if cost >= 2 * mean_between_failures:
        return mean_between_failures
    ratio = cost / (2 * mean_between_failures)
    return (
        young_interval(cost, mean_between_failures) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - cost
    )


def _intervals(fleet: Fleet, step: float, young: float) -> Floats:
    """Whole numbers of steps around Young's interval, or around the time a checkpoint is written.

    Where none blocks, the shortest is what the storage can follow.
    """
    middle = max(young, fleet.write_seconds, step)
    tried_I = middle * np.logspace(-1.5, 1.5, INTERVALS)
    return np.unique(np.maximum(1.0, np.round(tried_I / step))) * step
