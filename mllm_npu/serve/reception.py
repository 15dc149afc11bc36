"""Take requests in: refuse when full or draining, follow each to its end, measure it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from anyio import to_thread

from mllm_npu.errors import BusyError, RequestError
from mllm_npu.inference.events import Event, Finished, ImageMade
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import Conversation
from mllm_npu.serve.answerer import Answerer, Ticket
from mllm_npu.serve.api_errors import ApiError
from mllm_npu.serve.bridge import EventBridge
from mllm_npu.serve.metrics import Metrics

BUSY_SECONDS, DRAIN_SECONDS = 1, 5
"""After which another try is worth it."""


class Reply:
    """The events of one request as they come.

    Args:
        bridge: of its ticket.
        metrics: what it is measured with.
        began: time of the request.
    """

    def __init__(self, bridge: EventBridge, *, metrics: Metrics, began: float) -> None:
        self._bridge = bridge
        self._metrics = metrics
        self._began = began

    @property
    def position(self) -> int:
        """Requests in front of this one."""
        return self._bridge.ticket.position

    async def begins_within(self, seconds: float) -> bool:
        """Whether its first event, or its refusal, is there before some time has passed."""
        return await self._bridge.begins_within(seconds)

    async def events(self) -> AsyncIterator[Event]:
        """Everything that happens, ``Finished`` last.

        Raises:
            ApiError: the request cannot be answered, or was called off.
        """
        metrics, last = self._metrics, self._began
        first, finished = True, False
        try:
            async for event in self._bridge:
                now = metrics.clock()
                if first and not isinstance(event, Finished):
                    metrics.first_event.observe(now - self._began)
                    first = False
                if isinstance(event, ImageMade):
                    metrics.pictures.inc()
                    metrics.picture_seconds.observe(now - last)
                if isinstance(event, Finished):
                    finished = True
                    metrics.add_reply(
                        num_prompt_tokens=event.num_prompt_tokens,
                        num_new_tokens=event.num_new_tokens,
                        seconds=now - self._began,
                    )
                else:
                    metrics.add_piece()
                last = now
                yield event
        except BusyError as error:
            raise _busy(error) from error
        except RequestError as error:
            raise ApiError(str(error)) from error
        if not finished:
            raise ApiError(
                "The reply was called off: the server stops. Ask again.",
                status=503,
                retry_after=DRAIN_SECONDS,
            )


class Reception:
    """Where requests come in.

    Args:
        answerer: makes the replies.
        metrics: what they are measured with.
    """

    def __init__(self, *, answerer: Answerer, metrics: Metrics) -> None:
        self.answerer = answerer
        self.metrics = metrics
        self.draining = False
        self.num_open = 0
        self._empty = asyncio.Event()
        self._empty.set()

    @asynccontextmanager
    async def open(
        self, conversation: Conversation, options: GenerationOptions
    ) -> AsyncIterator[Reply]:
        """Take a request in for as long as the context lasts; leaving early calls it off.

        Raises:
            ApiError: it cannot be taken.
        """
        self.refuse_when_draining()
        began = self.metrics.clock()
        async with AsyncExitStack() as stack:
            stack.enter_context(_Counted(self))
            ticket = await self._submit(conversation, options)
            bridge = await stack.enter_async_context(EventBridge(ticket))
            yield Reply(bridge, metrics=self.metrics, began=began)

    def refuse_when_draining(self) -> None:
        """Take nothing new once the worker goes.

        Raises:
            ApiError: it does.
        """
        if self.draining:
            raise ApiError(
                "This worker finishes what it has begun and takes nothing new. Ask another one.",
                status=503,
                code="draining",
                retry_after=DRAIN_SECONDS,
            )

    def refuse_when_stopped(self) -> None:
        """Say so when the engine has failed for good.

        Raises:
            ApiError: it has.
        """
        if self.answerer.stats().error is not None:
            raise ApiError(
                "The engine of this worker has failed, and it takes nothing more. Ask another one.",
                status=503,
                code="engine_failed",
                retry_after=DRAIN_SECONDS,
            )

    async def drain(self, seconds: float) -> bool:
        """Take nothing new, and wait for what runs; whether all of it ended in time."""
        self.draining = True
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    def count(self, change: int) -> None:
        """Keep the number of open requests."""
        self.num_open += change
        if self.num_open:
            self._empty.clear()
        else:
            self._empty.set()

    async def _submit(self, conversation: Conversation, options: GenerationOptions) -> Ticket:
        submit = asyncio.ensure_future(
            to_thread.run_sync(self.answerer.submit, conversation, options)
        )
        try:
            return await asyncio.shield(submit)
        except asyncio.CancelledError:  # what was submitted meanwhile is called off as well
            submit.add_done_callback(_call_off)
            raise
        except BusyError as error:
            raise _busy(error) from error
        except RequestError as error:
            self.refuse_when_stopped()
            raise ApiError(str(error)) from error


class _Counted:
    """Counts a request for as long as it is open."""

    def __init__(self, reception: Reception) -> None:
        self.reception = reception

    def __enter__(self) -> None:
        self.reception.count(1)

    def __exit__(self, *_: object) -> None:
        self.reception.count(-1)


def _call_off(submit: asyncio.Future[Ticket]) -> None:
    if not submit.cancelled() and submit.exception() is None:
        submit.result().cancel()


def _busy(error: RequestError) -> ApiError:
    return ApiError(str(error), status=429, code="busy", retry_after=BUSY_SECONDS)
