"""Pack order: the plan as one endless row of packs over all epochs, and positions in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from mllm_npu.data.pack import Pack, PlannedWindow
from mllm_npu.data.plan import Plan
from mllm_npu.errors import CheckpointError


class Position(NamedTuple):
    """How far a run is.

    Args:
        epoch: which one, from 0.
        consumed: samples of that epoch that all ranks together were given.
    """

    epoch: int = 0
    consumed: int = 0


class PackOrder:
    """Walks over the packs of a plan; keeps no position itself.

    Args:
        plan: says what each window holds.
    """

    def __init__(self, *, plan: Plan) -> None:
        self.plan = plan
        self._newest: tuple[int, int, PlannedWindow] | None = None

    def epoch(self, number: int) -> list[Pack]:
        """All packs of an epoch, for tools and tests."""
        windows = range(self.plan.num_windows(number))
        return [pack for window in windows for pack in self.plan.window(number, window).packs]

    def packs(self, position: Position) -> Iterator[tuple[Pack, Position]]:
        """Every pack from a position on, with the position behind it; without end.

        Raises:
            CheckpointError: if the position lies inside a pack.
        """
        epoch, consumed = position
        while True:
            number = self.plan.find(epoch, consumed)
            while number < self.plan.num_windows(epoch):
                window = self._window(epoch, number)
                count = window.before
                for pack in window.packs:
                    begin, count = count, count + len(pack)
                    if begin == consumed:
                        consumed = count
                        yield pack, self._behind(epoch, consumed)
                    elif begin > consumed:
                        raise CheckpointError(
                            f"The data position {tuple(position)} lies inside a pack, so it was "
                            "not written by this plan. Start a new run from the weights."
                        )
                number += 1
            epoch, consumed = epoch + 1, 0

    def walk(
        self, position: Position, *, rank: int, world_size: int, epochs: int | None
    ) -> Iterator[tuple[Pack, Position]]:
        """Packs of one rank, each with the position behind the step it belongs to.

        Stops before a step in which some rank has no pack.
        """
        step: list[Pack] = []
        begin_epoch = position.epoch
        for pack, behind in self.packs(position):
            if epochs is not None and begin_epoch >= epochs:
                return
            step.append(pack)
            if len(step) == world_size:
                yield step[rank], behind
                step = []
            begin_epoch = behind.epoch

    def _behind(self, epoch: int, consumed: int) -> Position:
        """An epoch's end is the next one's start."""
        if consumed >= self.plan.samples_per_epoch:
            return Position(epoch + 1, 0)
        return Position(epoch, consumed)

    def _window(self, epoch: int, number: int) -> PlannedWindow:
        """A window; the newest stays in memory for who asks from a position again."""
        if self._newest is None or self._newest[:2] != (epoch, number):
            self._newest = (epoch, number, self.plan.window(epoch, number))
        return self._newest[2]
