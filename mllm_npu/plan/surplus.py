"""What a step costs beside its kernels and exchanges made alone, told apart by trial steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mllm_npu.plan.exchange_trial import Times, seconds_of
from mllm_npu.plan.traced_step import Operation, Phase
from mllm_npu.plan.trial_model import PHASES
from mllm_npu.plan.trial_step import TrialStep

Alone = Callable[[Operation], float]
"""Seconds of one call of an operation, made alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surplus:
    """What surrounds kernels, by phase.

    Args:
        each: seconds of every kernel: modules, autograd, dispatch.
        byte: seconds of every byte moved, which in a step is not in the cache.
    """

    each: Mapping[str, float]
    byte: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharding:
    """What surrounds exchanges where parameters are sharded.

    Args:
        each: seconds of every exchange.
        byte: seconds of every byte exchanged.
        update: seconds of every parameter that is updated.
    """

    each: float = 0.0
    byte: float = 0.0
    update: float = 0.0


def find_surplus(trials: Sequence[TrialStep], alone: Alone) -> Surplus:
    """Compare steps without exchanges with their kernels made alone.

    Args:
        trials: of different sizes, which tell kernels and bytes apart.
        alone: says what a kernel takes.
    """
    each: dict[str, float] = {}
    byte: dict[str, float] = {}
    for phase in PHASES:
        rows, left = [], []
        for trial in trials:
            made = [one for one in trial.operations if one.phase == phase]
            rows.append(
                [sum(one.calls for one in made), sum(one.calls * one.bytes for one in made)]
            )
            explained = sum(one.calls * alone(one) for one in made)
            left.append(max(0.0, trial.seconds[phase] - explained))
        each[phase], byte[phase] = solve(rows, left)
    return Surplus(each=each, byte=byte)


def find_sharding(
    trials: Sequence[TrialStep], alone: Alone, *, surplus: Surplus, times: Times
) -> Sharding:
    """Compare steps of sharded models with all that is explained by other measurements.

    Args:
        trials: of different sizes, which tell exchanges and bytes apart.
        alone: says what a kernel takes.
        surplus: what surrounds kernels where nothing is sharded.
        times: of exchanges made alone.
    """
    rows, left, updates = [], [], []
    for trial in trials:
        over = {phase: _left(trial, phase, alone, surplus, times) for phase in PHASES}
        made = [one for one in trial.exchanges if one.phase != "optimizer"]
        rows.append([sum(one.calls for one in made), sum(one.calls * one.bytes for one in made)])
        left.append(max(0.0, over["forward"] + over["backward"]))
        updates.append(max(0.0, over["optimizer"]) / trial.parameters)
    each, byte = solve(rows, left)
    return Sharding(each=each, byte=byte, update=float(np.mean(updates)))


def solve(rows: Sequence[Sequence[float]], left: Sequence[float]) -> tuple[float, float]:
    """Seconds per call and per byte, neither below 0, that explain what is left over.

    Args:
        rows: calls and bytes of each trial.
        left: seconds that nothing else explains.
    """
    table, over = np.asarray(rows, dtype=np.float64), np.asarray(left, dtype=np.float64)
    # Shares, so that the small trial counts as much as the large one.
    scale = 1 / np.maximum(over, 1e-9)
    both = np.linalg.lstsq(table * scale[:, None], over * scale, rcond=None)[0]
    if both.min() >= 0:
        return float(both[0]), float(both[1])
    alone = [float((over / table[:, column]).mean()) for column in (0, 1)]
    return (alone[0], 0.0) if both[1] < 0 else (0.0, alone[1])


def _left(trial: TrialStep, phase: Phase, alone: Alone, surplus: Surplus, times: Times) -> float:
    """Seconds of a phase that kernels, what surrounds them and exchanges do not explain."""
    explained = sum(
        one.calls * (alone(one) + surplus.each[phase] + one.bytes * surplus.byte[phase])
        for one in trial.operations
        if one.phase == phase
    )
    explained += sum(
        one.calls * seconds_of(times[one.kind], one.bytes)
        for one in trial.exchanges
        if one.phase == phase
    )
    return trial.seconds[phase] - explained
