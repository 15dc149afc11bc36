"""Make each kind of operation of a step for a moment, to know how long it takes alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

import torch

from mllm_npu.plan.replay import Call, prepare
from mllm_npu.plan.steady_clock import SteadyClock
from mllm_npu.plan.traced_step import Operation

Progress = Callable[[int, int], object]
Kind = tuple[str, tuple[tuple[int, ...], ...], str]
"""Name, shapes and dtype of an operation."""

_MOMENT = 0.004
"""Seconds of processor time a sample takes at least."""
_PASSES = 5


def kind_of(operation: Operation) -> Kind:
    """What equal calls have in common."""
    return operation.name, operation.shapes, operation.dtype


def make_kinds(
    operations: Sequence[Operation],
    clock: SteadyClock,
    *,
    progress: Progress = lambda done, total: None,
    moment: float = _MOMENT,
) -> dict[Kind, float]:
    """Seconds of one call of each kind; those that cannot be called are left out.

    Args:
        operations: of a step.
        clock: of the device on which they are made.
        progress: is called with the samples done and all of them.
        moment: seconds of a sample.
    """
    kinds = {kind_of(operation): operation for operation in operations}
    found = {kind: prepare(operation, clock.device) for kind, operation in kinds.items()}
    calls = {kind: call for kind, call in found.items() if call is not None}
    seconds = time_calls(list(calls.values()), clock, progress=progress, moment=moment)
    return dict(zip(calls, seconds, strict=True))


def time_calls(
    calls: Sequence[Call],
    clock: SteadyClock,
    *,
    progress: Progress = lambda done, total: None,
    moment: float = _MOMENT,
) -> list[float]:
    """Seconds of one of each, medians of a few passes through all of them.

    What disturbs the machine for a while then falls on one pass of many calls, not on one call.

    Args:
        calls: whatever order.
        clock: of their device.
        progress: is called with the samples done and all of them.
        moment: seconds a sample takes at least.
    """
    samples: list[list[float]] = [[] for _ in calls]
    counts = [0] * len(calls)
    total = _PASSES * len(calls)
    for number in range(total):
        place = number % len(calls)
        run = calls[place].ready()
        _sample(run, clock, 1)
        if not counts[place]:
            counts[place] = _count(run, clock, moment)
        samples[place].append(_sample(run, clock, counts[place]))
        progress(number + 1, total)
    return [statistics.median(taken) for taken in samples]


def _count(run: Callable[[], object], clock: SteadyClock, moment: float) -> int:
    """How many calls take a moment."""
    count, spent = 1, _sample(run, clock, 1)
    while spent < moment / 2:
        count = max(count * 2, min(count * 64, math.ceil(count * moment / max(spent, 1e-6))))
        spent = count * _sample(run, clock, count)
    return count


def _sample(run: Callable[[], object], clock: SteadyClock, count: int) -> float:
    """Seconds of one call."""
    clock.start()
    with torch.no_grad():
        for _ in range(count):
            run()
    return clock.read() / count
