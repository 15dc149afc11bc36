"""Skips: count what is left out by reason, list it, and stop where too much is left out."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mllm_npu.data.shards import Break
from mllm_npu.errors import ConfigError, DataError

RECENT = 2000
"""Planned samples over which the share of skipped ones is taken."""
FEWEST = 200
"""Planned samples before a share means anything."""
BROKEN_TAR = "tar broken, samples may be missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one planned sample.

    Args:
        reason: why it was left out; empty if it was used.
        is_fault: whether something is wrong with it; False where a filter of the task left it out.
        source: name of its data set.
        shard: path of its shard.
        key: name of its row, if that could be read.
        sample: its number in the source.
    """

    reason: str = ""
    is_fault: bool = True
    source: str = ""
    shard: str = ""
    key: str = ""
    sample: int = -1


USED = Outcome()


class Skips:
    """Takes outcomes in the order in which samples were planned.

    Faults go to ``quarantine``, one JSON line each, once per sample and reason:
    ``{"source", "shard", "key", "sample", "reason"}``. What a filter leaves out is only counted.

    Args:
        quarantine: file that is appended to; None writes none.
        max_share: share of faults among the last samples that stops the run, 0..1.
        most_in_a_row: faults without a used sample between them that stop the run.

    Raises:
        ConfigError: if the share is none.
        DataError: if the quarantine cannot be written.
    """

    def __init__(
        self,
        *,
        quarantine: str | Path | None = None,
        max_share: float = 0.1,
        most_in_a_row: int = 100,
    ) -> None:
        if not 0 < max_share <= 1:
            raise ConfigError(
                f"max_skip_share={max_share} was asked for. Use a share above 0, up to 1."
            )
        self.quarantine = None if quarantine is None else Path(quarantine)
        self.max_share = max_share
        self.most_in_a_row = most_in_a_row
        self.by_reason: Counter[str] = Counter()
        self._in_a_row: list[Outcome] = []
        self._recent: deque[Outcome] = deque(maxlen=RECENT)
        self._num_recent_faults = 0
        self._listed: set[tuple[str, int, str]] | None = None

    def note(self, outcomes: Iterable[Outcome]) -> None:
        """Count and list outcomes.

        Raises:
            DataError: if too many samples were skipped in a row, or too large a share of the last
                ones; names the shard most of them came from.
        """
        faults = [outcome for outcome in map(self._count, outcomes) if outcome is not None]
        if faults:
            self._list(faults)
            self._judge(faults[-1])

    def note_breaks(self, source: str, shard: str, breaks: Iterable[Break]) -> None:
        """List the broken places of a shard; how many samples they took is not known."""
        for one in breaks:
            self.by_reason[BROKEN_TAR] += 1
            reason = f"{one.reason} Samples there are lost."
            self._list([Outcome(reason=reason, source=source, shard=shard, sample=one.offset)])

    def _count(self, outcome: Outcome) -> Outcome | None:
        """Count one; gives it back if it is a fault."""
        is_fault = bool(outcome.reason) and outcome.is_fault
        if len(self._recent) == RECENT:
            first = self._recent[0]
            self._num_recent_faults -= bool(first.reason) and first.is_fault
        self._recent.append(outcome)
        self._num_recent_faults += is_fault
        if outcome.reason:
            self.by_reason[outcome.reason] += 1
        if is_fault:
            self._in_a_row.append(outcome)
            return outcome
        if not outcome.reason:
            self._in_a_row.clear()
        return None

    def _judge(self, last: Outcome) -> None:
        if len(self._in_a_row) >= self.most_in_a_row:
            self._stop(f"{len(self._in_a_row)} samples in a row were skipped", self._in_a_row, last)
        share = self._num_recent_faults / max(len(self._recent), 1)
        if len(self._recent) >= FEWEST and share > self.max_share:
            faults = [outcome for outcome in self._recent if outcome.reason and outcome.is_fault]
            self._stop(
                f"{len(faults)} of the last {len(self._recent)} samples were skipped, and "
                f"max_skip_share={self.max_share} allows {self.max_share:.1%}",
                faults,
                last,
            )

    def _stop(self, what: str, faults: Iterable[Outcome], last: Outcome) -> None:
        shards = Counter(f"{fault.source} ({fault.shard})" for fault in faults)
        worst, times = shards.most_common(1)[0]
        listed = "" if self.quarantine is None else f" All of them are in {self.quarantine}."
        raise DataError(
            f"{what}, {times} of them from {worst}; the last reason is {last.reason!r}. Repair or "
            f"leave out that shard, or correct the task that reads it.{listed}"
        )

    def _list(self, faults: Iterable[Outcome]) -> None:
        if self.quarantine is None:
            return
        try:
            if self._listed is None:
                self._listed = _read_listed(self.quarantine)
                self.quarantine.parent.mkdir(parents=True, exist_ok=True)
            with self.quarantine.open("a", encoding="utf-8") as file:
                for fault in faults:
                    self._write(file, fault)
        except OSError as error:
            raise DataError(
                f"{self.quarantine} cannot be written: {error}. Make room on its disk, or give "
                "another quarantine."
            ) from error

    def _write(self, file: IO[str], fault: Outcome) -> None:
        mark = (fault.shard, fault.sample, fault.reason)
        if self._listed is None or mark in self._listed:
            return
        self._listed.add(mark)
        line = {
            "source": fault.source,
            "shard": fault.shard,
            "key": fault.key,
            "sample": fault.sample,
            "reason": fault.reason,
        }
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _read_listed(path: Path) -> set[tuple[str, int, str]]:
    """What an earlier part of the run has listed; a line cut off by a crash is passed over."""
    listed = set()
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            found = _parse(line)
            if found:
                listed.add((str(found["shard"]), int(found["sample"]), str(found["reason"])))
    return listed


def _parse(line: str) -> Mapping[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    is_whole = isinstance(value, dict) and {"shard", "sample", "reason"} <= set(value)
    return value if is_whole else None
