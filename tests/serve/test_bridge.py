"""A ticket that blocks, awaited."""

import asyncio
import threading

import pytest

from mllm_npu.errors import RequestError
from mllm_npu.inference.events import TextDelta
from mllm_npu.serve.bridge import EventBridge


class Ticket:
    position = 0

    def __init__(self, *events):
        self.events = events
        self.go, self.cancelled = threading.Event(), threading.Event()

    def cancel(self):
        self.cancelled.set()
        self.go.set()

    def __iter__(self):
        for event in self.events:
            self.go.wait(10)
            if self.cancelled.is_set():
                return
            if isinstance(event, Exception):
                raise event
            yield event


def run(work):
    return asyncio.run(asyncio.wait_for(work, 20))


def test_events_come_in_order_and_the_loop_goes_on():
    ticket = Ticket(*(TextDelta(text=str(number)) for number in range(50)))

    async def read():
        async with EventBridge(ticket) as bridge:
            assert not await bridge.begins_within(0.05)
            ticket.go.set()
            assert await bridge.begins_within(10)
            return [event.text async for event in bridge]

    assert run(read()) == [str(number) for number in range(50)]
    assert not ticket.cancelled.is_set()


def test_leaving_early_cancels():
    ticket = Ticket(TextDelta(text="a"), TextDelta(text="b"))

    async def leave():
        async with EventBridge(ticket) as bridge:
            ticket.go.set()
            async for _ in bridge:
                break

    run(leave())
    assert ticket.cancelled.is_set()


def test_being_cancelled_cancels():
    ticket = Ticket(TextDelta(text="a"))

    async def read():
        async with EventBridge(ticket) as bridge:
            return [event async for event in bridge]

    async def give_up():
        reading = asyncio.ensure_future(read())
        await asyncio.sleep(0.05)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    run(give_up())
    assert ticket.cancelled.is_set()


def test_an_error_comes_where_the_events_do():
    ticket = Ticket(TextDelta(text="a"), RequestError("no"))
    ticket.go.set()
    seen = []

    async def read():
        async with EventBridge(ticket) as bridge:
            async for event in bridge:
                seen.append(event.text)

    with pytest.raises(RequestError, match="no"):
        run(read())
    assert seen == ["a"]


def test_a_loop_that_is_gone_cancels():
    ticket = Ticket(TextDelta(text="a"))

    async def open_only():
        bridge = EventBridge(ticket)
        threading.Thread(target=bridge._pump, daemon=True).start()

    run(open_only())
    ticket.go.set()
    assert ticket.cancelled.wait(10)
