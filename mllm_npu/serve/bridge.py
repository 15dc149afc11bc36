"""From a ticket that blocks a thread to events that an event loop awaits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

from mllm_npu.inference.events import Event
from mllm_npu.serve.answerer import Ticket


class EventBridge:
    """The events of one ticket, read by a thread of its own and handed to the event loop.

    Used as ``async with``: leaving it, in whatever way, cancels the ticket.

    Args:
        ticket: whose events are wanted.
    """

    def __init__(self, ticket: Ticket) -> None:
        self.ticket = ticket
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event | BaseException | None] = asyncio.Queue()
        self._waiting: asyncio.Task[Event | BaseException | None] | None = None
        self._ended = False

    async def __aenter__(self) -> EventBridge:
        threading.Thread(target=self._pump, name="ticket", daemon=True).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
        if not self._ended:
            self.ticket.cancel()

    async def begins_within(self, seconds: float) -> bool:
        """Whether the next event, or the end, is there before some time has passed."""
        if self._waiting is None:
            self._waiting = asyncio.ensure_future(self._events.get())
        done, _ = await asyncio.wait({self._waiting}, timeout=seconds)
        return bool(done)

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            if self._waiting is None:
                event = await self._events.get()
            else:
                event = await self._waiting
                self._waiting = None
            if event is None or isinstance(event, BaseException):
                self._ended = True
            if event is None:
                return
            if isinstance(event, BaseException):
                raise event
            yield event

    def _pump(self) -> None:
        try:
            for event in self.ticket:
                self._hand_over(event)
            self._hand_over(None)
        except Exception as error:  # noqa: BLE001 - whoever awaits must hear of it
            self._hand_over(error)

    def _hand_over(self, event: Event | BaseException | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
        except RuntimeError:  # the loop is closed, and with it whoever waited
            self.ticket.cancel()
