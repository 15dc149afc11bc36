"""What a process is doing right now, for whoever must say where a run hangs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Progress:
    """Notes of the main thread; other threads read them.

    Attributes:
        step: the update in progress.
        phase: what it does, in words.
        collective: the last exchange between ranks it has begun.
        inside_collective: whether that exchange has not come back yet.
        keys: sample ids of the batch in progress.
        beats: how many notes there were; it rises as long as the process gets on.
        since: when the last note was made, seconds of a clock that does not jump.
    """

    step: int = 0
    phase: str = "start"
    collective: str = "none yet"
    inside_collective: bool = False
    keys: tuple[str, ...] = ()
    beats: int = 0
    since: float = field(default_factory=time.monotonic)

    def note(
        self, phase: str, *, step: int | None = None, keys: Sequence[str] | None = None
    ) -> None:
        """Something new begins.

        Args:
            phase: in words.
            step: the update it belongs to; None: the same.
            keys: sample ids of its batch; None: the same.
        """
        self.phase = phase
        self.step = self.step if step is None else step
        self.keys = self.keys if keys is None else tuple(keys)
        self._beat()

    def exchange(self, collective: str) -> None:
        """An exchange between ranks begins; its end is not known."""
        self.collective, self.inside_collective = collective, False
        self._beat()

    @contextmanager
    def inside(self, collective: str) -> Iterator[None]:
        """An exchange between ranks, from its begin to its end."""
        self.collective, self.inside_collective = collective, True
        self._beat()
        try:
            yield
        finally:
            self.inside_collective = False
            self._beat()

    def _beat(self) -> None:
        self.beats += 1
        self.since = time.monotonic()
