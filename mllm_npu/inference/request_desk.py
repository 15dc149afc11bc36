"""Where requests of an engine wait, and from where their events go out; any thread may come."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from mllm_npu.errors import BusyError
from mllm_npu.inference.events import Event, Finished
from mllm_npu.inference.live_row import LiveRow
from mllm_npu.inference.live_stats import Meter
from mllm_npu.inference.ticket import Ticket


class RequestDesk:
    """Tickets in the queue and those that are being answered.

    Args:
        max_queue: tickets that may wait.
        max_seconds: time of a request, its waiting included.
        forget: is told of every request that is over.

    Attributes:
        changed: is notified of whatever may be new work.
        queue: tickets that wait.
        live: tickets that are being answered, by request.
        meter: counts what is over.
    """

    def __init__(
        self, *, max_queue: int, max_seconds: float, forget: Callable[[LiveRow], None]
    ) -> None:
        self.max_queue, self.max_seconds = max_queue, max_seconds
        self.changed = threading.Condition()
        self.queue: deque[Ticket] = deque()
        self.live: dict[LiveRow, Ticket] = {}
        self.meter = Meter()
        self.has_cancelled = False
        self._forget = forget

    def refuse_if_full(self) -> None:
        """Refuse where no more may wait.

        Raises:
            BusyError: too many do.
        """
        if len(self.queue) >= self.max_queue:
            raise BusyError(
                f"{len(self.queue)} requests wait already, and no more may. Ask again later."
            )

    def enter(self, ticket: Ticket) -> None:
        """Put a ticket at the end of the queue; see ``refuse_if_full``."""
        with self.changed:
            self.refuse_if_full()
            self.queue.append(ticket)
            self.changed.notify_all()

    def note_cancelled(self) -> None:
        """A ticket was cancelled."""
        with self.changed:
            self.has_cancelled = True
            self.changed.notify_all()

    def position(self, ticket: Ticket) -> int:
        """Place in the queue from 1; 0 for one that does not wait."""
        with self.changed:
            return self.queue.index(ticket) + 1 if ticket in self.queue else 0

    def admit(self, most: int) -> list[Ticket]:
        """The next tickets, which are being answered from now on."""
        with self.changed:
            tickets = [self.queue.popleft() for _ in range(min(most, len(self.queue)))]
            self.live.update((ticket.row, ticket) for ticket in tickets)
            return tickets

    def leave_cancelled(self) -> list[LiveRow]:
        """End tickets nobody waits for; gives their requests."""
        if not self.has_cancelled:
            return []
        with self.changed:
            self.has_cancelled = False
            gone = [one for one in (*self.queue, *self.live.values()) if one.cancelled]
            self.queue = deque(one for one in self.queue if not one.cancelled)
        for ticket in gone:
            self.end(ticket, None)
        return [ticket.row for ticket in gone]

    def leave_late(self) -> None:
        """End tickets that have waited too long."""
        with self.changed:
            late = [ticket for ticket in self.queue if self.is_late(ticket)]
            self.queue = deque(ticket for ticket in self.queue if ticket not in late)
        for ticket in late:
            message = f"The request waited {self.max_seconds} seconds for a slot. Ask again later."
            self.end(ticket, BusyError(message))

    def is_late(self, ticket: Ticket) -> bool:
        """Whether the time of a request is over."""
        return time.monotonic() - ticket.begun > self.max_seconds

    def deliver(self, row: LiveRow, events: Sequence[Event]) -> None:
        """Hand a request's events on, or its error; those of one that is over are dropped."""
        ticket = self.live.get(row)
        if ticket is None:
            return
        if row.error is not None:
            self.end(ticket, row.error)
            return
        if ticket.note_token():
            self.meter.first_token_seconds.append(ticket.first_token or 0.0)
        for event in events:
            ticket.put(event)
            if isinstance(event, Finished):
                self._leave(ticket, "finished")

    def end(self, ticket: Ticket, error: BaseException | None) -> None:
        """End a ticket without ``Finished``; no error means that nobody waits for it."""
        self._leave(ticket, "cancelled" if error is None else "failed")
        ticket.end(error)

    def end_all(self, error: BaseException) -> None:
        """End every ticket with an error."""
        with self.changed:
            every = (*self.queue, *self.live.values())
            self.queue.clear()
        for ticket in every:
            self.end(ticket, error)

    def _leave(self, ticket: Ticket, how: str) -> None:
        with self.changed:
            self.meter.counts[how] += 1
            self.live.pop(ticket.row, None)
        self._forget(ticket.row)
