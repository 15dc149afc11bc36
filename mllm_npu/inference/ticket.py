"""What a caller holds while a request is answered: its events as they come, and the way out."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Self

from mllm_npu.batch import Sample
from mllm_npu.inference.events import Event, Finished
from mllm_npu.inference.live_row import LiveRow


class Ticket(Iterator[Event]):
    """Blocks for the next event; the last one is ``Finished``, or the request's error is raised.

    It ends without ``Finished`` only if it was cancelled. One thread may read it.

    Args:
        row: the request.
        sample: its prompt.
        names: of its read tiles.
        begun: when it was put, by the monotonic clock.
        changed: is called when it is cancelled.
        find_position: see ``position``.

    Attributes:
        first_token: seconds until the model had chosen the first token; None before.
        cancelled: nobody waits any more.
    """

    def __init__(
        self,
        *,
        row: LiveRow,
        sample: Sample,
        names: Sequence[bytes],
        begun: float,
        changed: Callable[[], None],
        find_position: Callable[[Ticket], int],
    ) -> None:
        self.row = row
        self.sample = sample
        self.names = names
        self.begun = begun
        self.first_token: float | None = None
        self.cancelled = False
        self._changed = changed
        self._find_position = find_position
        self._events: queue.SimpleQueue[Event | BaseException | None] = queue.SimpleQueue()
        self._ended = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        if self._ended:
            raise StopIteration
        event = self._events.get()
        self._ended = event is None or isinstance(event, BaseException | Finished)
        if event is None:
            raise StopIteration
        if isinstance(event, BaseException):
            raise event
        return event

    @property
    def position(self) -> int:
        """Place in the queue, from 1; 0 when it is being answered or has ended."""
        return self._find_position(self)

    def cancel(self) -> None:
        """Nobody waits any more: the slot is free at the next step, and the events end."""
        self.cancelled = True
        self._changed()

    def put(self, event: Event) -> None:
        """Add an event; for the engine."""
        self._events.put(event)

    def note_token(self) -> bool:
        """A token was chosen; for the engine. Gives whether it was the first one."""
        is_first = self.first_token is None
        if is_first:
            self.first_token = time.monotonic() - self.begun
        return is_first

    def end(self, error: BaseException | None = None) -> None:
        """End without ``Finished``, by an error or because it was cancelled; for the engine."""
        self._events.put(error)
