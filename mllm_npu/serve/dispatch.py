"""Choose the worker a request goes to: the one with the shortest queue, or by lot."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from enum import StrEnum

from mllm_npu.serve.registry import Worker


class Dispatch(StrEnum):
    """How a worker is chosen; the values are those of ``--dispatch``."""

    SHORTEST_QUEUE = "shortest_queue"
    LOTTERY = "lottery"


Pick = Callable[[Sequence[Worker]], Worker]
"""Chooses among workers, of which there is at least one."""


class ShortestQueue:
    """The worker at which a request waits least; of equals the one that has waited longest."""

    def __init__(self) -> None:
        self._picks = itertools.count(1)

    def __call__(self, workers: Sequence[Worker]) -> Worker:
        """Choose one."""
        worker = min(workers, key=lambda each: (each.busyness, each.last_picked))
        worker.last_picked = next(self._picks)
        return worker


class Lottery:
    """A worker by lot, a fast one more often in proportion to its speed.

    Args:
        chance: where the lots come from.
    """

    def __init__(self, *, chance: random.Random | None = None) -> None:
        self._chance = chance or random.Random()

    def __call__(self, workers: Sequence[Worker]) -> Worker:
        """Choose one."""
        return self._chance.choices(workers, weights=[each.speed for each in workers])[0]


def make_pick(dispatch: Dispatch) -> Pick:
    """The way to choose that was asked for."""
    return {Dispatch.SHORTEST_QUEUE: ShortestQueue, Dispatch.LOTTERY: Lottery}[dispatch]()
