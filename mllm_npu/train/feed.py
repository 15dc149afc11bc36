"""Hand out the micro-batches of each update, and count what there is to learn in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mllm_npu.batch import Batch
from mllm_npu.errors import ConfigError, TrainingError
from mllm_npu.train.objectives.objective import Objective
from mllm_npu.train.run_state import Batches

MOST_IDLE_STEPS = 20
"""Updates in a row without any target that stop a run."""


class Feed:
    """The data of one rank, update by update.

    Args:
        batches: endless, with a position.
        objective: says what counts.
        per_step: micro-batches of an update.
    """

    def __init__(self, *, batches: Batches, objective: Objective, per_step: int) -> None:
        self.batches = batches
        self.objective = objective
        self.per_step = per_step
        self._iterator: Iterator[Batch] = iter(())
        self._idle_steps = 0

    def begin(self) -> None:
        """Start at the position where the data are."""
        self._iterator = iter(self.batches)

    def next(self, step: int) -> list[Batch]:
        """Micro-batches of update number ``step``, on the host.

        Raises:
            TrainingError: the data end.
        """
        micro_batches: list[Batch] = []
        for _ in range(self.per_step):
            batch = next(self._iterator, None)
            if batch is None:
                raise TrainingError(
                    f"The data end at step {step - 1}. Let them repeat (epochs=null), or lower "
                    "max_steps."
                )
            micro_batches.append(batch)
        return micro_batches

    def count(self, micro_batches: Sequence[Batch]) -> dict[str, float]:
        """Elements behind each term of the loss, of this rank."""
        counts: dict[str, float] = {}
        for batch in micro_batches:
            for name, count in self.objective.counts(batch).items():
                counts[name] = counts.get(name, 0.0) + count
        return counts

    def require_work(self, counts: Mapping[str, float]) -> None:
        """Stop a run whose data have nothing for its objective, instead of training on nothing.

        Args:
            counts: of the whole update, all ranks.

        Raises:
            TrainingError: too many updates in a row had nothing.
        """
        self._idle_steps = 0 if any(counts.values()) else self._idle_steps + 1
        if self._idle_steps >= MOST_IDLE_STEPS:
            raise TrainingError(
                f"{self._idle_steps} steps in a row had nothing to learn from ({', '.join(counts)} "
                "had no elements). Choose data that go with this objective."
            )


def share_packs(packs_per_step: int | None, accumulate: int, ranks: int) -> int:
    """Micro-batches per update and rank.

    Args:
        packs_per_step: of all ranks together; None leaves it to ``accumulate``.
        accumulate: per rank.
        ranks: that see data of their own.

    Raises:
        ConfigError: the packs cannot be shared out.
    """
    if packs_per_step is None:
        return accumulate
    if packs_per_step < 1 or packs_per_step % ranks:
        raise ConfigError(
            f"packs_per_step={packs_per_step} was asked for, and {ranks} ranks see data of their "
            "own. Give a multiple of that, or start a number of ranks that divides it."
        )
    return packs_per_step // ranks
