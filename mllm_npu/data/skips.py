"""Skips: count what is left out by reason, and stop when nothing but skips comes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from mllm_npu.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one planned sample.

    Args:
        reason: why it was left out; empty if it was used.
        where: the source and shard it came from, if it was left out.
    """

    reason: str = ""
    where: str = ""


class SkipCounter:
    """Counts skipped samples in the order in which they were planned.

    Args:
        most_in_a_row: skips without a used sample between them that stop the run.
    """

    def __init__(self, *, most_in_a_row: int = 100) -> None:
        self.most_in_a_row = most_in_a_row
        self.by_reason: Counter[str] = Counter()
        self._in_a_row: list[str] = []

    def note(self, outcomes: Iterable[Outcome]) -> None:
        """Count outcomes.

        Raises:
            DataError: if too many samples in a row were skipped; names the shard most of them came
                from.
        """
        for outcome in outcomes:
            if not outcome.reason:
                self._in_a_row.clear()
                continue
            self.by_reason[outcome.reason] += 1
            self._in_a_row.append(outcome.where)
            if len(self._in_a_row) >= self.most_in_a_row:
                worst, times = Counter(self._in_a_row).most_common(1)[0]
                raise DataError(
                    f"{len(self._in_a_row)} samples in a row were skipped, {times} of them from "
                    f"{worst}; the last reason is {outcome.reason!r}. Repair or leave out that "
                    "shard, or correct the task that reads it."
                )
