"""Give the events of a reply in order, though a picture is ready later than the text behind it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from mllm_npu.inference.events import Event


class EventOrder:
    """Holds back what stands behind a picture that is still being drawn."""

    def __init__(self) -> None:
        self._waiting: deque[Event | _Gap] = deque()
        self._gaps: dict[int, _Gap] = {}

    @property
    def is_blocked(self) -> bool:
        """Whether a picture is missing."""
        return bool(self._waiting)

    def add(self, events: Sequence[Event]) -> list[Event]:
        """Put events behind the others; gives those that may go now."""
        self._waiting.extend(events)
        return self._release()

    def leave_gap(self, number: int) -> None:
        """A picture of this number belongs here and is not ready."""
        self._gaps[number] = _Gap()
        self._waiting.append(self._gaps[number])

    def fill_gap(self, number: int, event: Event) -> list[Event]:
        """The picture is there; gives what may go now."""
        self._gaps.pop(number).event = event
        return self._release()

    def _release(self) -> list[Event]:
        released: list[Event] = []
        while self._waiting:
            first = self._waiting[0]
            event = first.event if isinstance(first, _Gap) else first
            if event is None:
                break
            released.append(event)
            self._waiting.popleft()
        return released


class _Gap:
    """Place of an event that is to come."""

    event: Event | None = None
