"""Several replies at once: their events in the order they come, each with its number."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from mllm_npu.inference.events import Event
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import Conversation
from mllm_npu.serve.reception import Reception, Reply


class Replies:
    """The replies to one request.

    Args:
        replies: one for each choice.
    """

    def __init__(self, replies: Sequence[Reply]) -> None:
        self.replies = replies

    @property
    def position(self) -> int:
        """Requests in front of the first one."""
        return min(reply.position for reply in self.replies)

    async def begins_within(self, seconds: float) -> bool:
        """Whether something has happened to the first one before some time has passed."""
        return await self.replies[0].begins_within(seconds)

    async def events(self) -> AsyncIterator[tuple[int, Event]]:
        """Number of the choice and event, as they come.

        Raises:
            ApiError: one of them cannot be made; the others are called off.
        """
        if len(self.replies) == 1:
            async for event in self.replies[0].events():
                yield 0, event
            return
        waiting: asyncio.Queue[tuple[int, Event] | None] = asyncio.Queue()
        tasks = [
            asyncio.ensure_future(_follow(number, reply, waiting))
            for number, reply in enumerate(self.replies)
        ]
        for task in tasks:  # None tells that one has ended, well or not
            task.add_done_callback(lambda _: waiting.put_nowait(None))
        try:
            num_open = len(tasks)
            while num_open:
                item = await waiting.get()
                if item is not None:
                    yield item
                    continue
                num_open -= 1
                _raise_failure(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def open_replies(
    reception: Reception, asked: Sequence[tuple[Conversation, GenerationOptions]]
) -> AsyncIterator[Replies]:
    """Take a request for several replies in; leaving early calls all of them off.

    Raises:
        ApiError: one cannot be taken.
    """
    async with AsyncExitStack() as stack:
        replies = [
            await stack.enter_async_context(reception.open(conversation, options))
            for conversation, options in asked
        ]
        yield Replies(replies)


async def _follow(
    number: int, reply: Reply, waiting: asyncio.Queue[tuple[int, Event] | None]
) -> None:
    async for event in reply.events():
        waiting.put_nowait((number, event))


def _raise_failure(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        if task.done():
            task.result()
