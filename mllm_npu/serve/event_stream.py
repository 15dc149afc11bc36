"""A streamed reply: begins when the first piece is there, ends when the client goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mllm_npu.inference.events import Event
from mllm_npu.serve.api_errors import ApiError, error_body, error_kind, to_json
from mllm_npu.serve.connection import while_connected
from mllm_npu.serve.merging import Replies
from mllm_npu.serve.metrics import Metrics

PING_SECONDS = 5.0
"""A stream that waits says so this often, so that nobody in between takes it for dead."""

NumberedEvents = AsyncIterator[tuple[int, Event]]


class EventStream(Response):
    """Sends pieces as they are made; when the client goes, what makes them is called off.

    Args:
        pieces: what is sent.
        closing: left at the end, however it comes.
        media_type: of the pieces.
    """

    def __init__(
        self, pieces: AsyncIterator[bytes], *, closing: AsyncExitStack, media_type: str
    ) -> None:
        self.pieces = pieces
        self.closing = closing
        self.status_code = 200
        self.media_type = media_type
        self.background = None
        self.body = b""
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything."""
        async with self.closing:
            sending = asyncio.ensure_future(self._send(send))
            leaving = asyncio.ensure_future(_wait_for_leaving(receive))
            try:
                await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if sending.done():
                    sending.result()
            except OSError:  # the connection broke while something was sent
                pass
            finally:
                for task in (sending, leaving):
                    task.cancel()
                await asyncio.gather(sending, leaving, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for piece in self.pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def begin(
    request: Request, replies: Replies, *, patience: float
) -> tuple[NumberedEvents, bool]:
    """Wait a while for the first event, so that a refusal still gets its status.

    Args:
        request: whose client may go meanwhile.
        replies: what is waited for.
        patience: seconds.

    Returns:
        The events, and whether the first one is there.

    Raises:
        ApiError: the request is refused, or the client has gone.
    """
    events = replies.events()
    begun = await while_connected(
        request, replies.begins_within(patience), seconds=patience + PING_SECONDS
    )
    if not begun:
        return events, False
    first = await while_connected(request, anext(events), seconds=PING_SECONDS)
    return _with_first(first, events), True


async def server_sent(
    pieces: AsyncIterator[dict[str, object]],
    *,
    replies: Replies,
    begun: bool,
    seconds: float,
    metrics: Metrics,
) -> AsyncIterator[bytes]:
    """Pieces as server-sent events, ``[DONE]`` last; a failure is told in the stream.

    Args:
        pieces: JSON objects.
        replies: what they are made of.
        begun: whether the first event is there; until it is, comments tell the place in the queue.
        seconds: until it must be complete.
        metrics: count failures.
    """
    try:
        async with asyncio.timeout(seconds):
            while not begun:
                yield f": {replies.position} in front\n\n".encode()
                begun = await replies.begins_within(PING_SECONDS)
            async for piece in pieces:
                yield f"data: {to_json(piece)}\n\n".encode()
    except (ApiError, TimeoutError) as error:
        failure = error if isinstance(error, ApiError) else timed_out(seconds)
        metrics.errors.labels(error_kind(failure.status)).inc()
        body = error_body(failure.message, status=failure.status, code=failure.code)
        yield f"data: {to_json(body)}\n\n".encode()
    yield b"data: [DONE]\n\n"


def timed_out(seconds: float) -> ApiError:
    """The refusal of a reply that takes too long."""
    return ApiError(
        f"The reply was not complete within {seconds:g} seconds. Ask for less.",
        status=504,
        code="timeout",
    )


async def _with_first(first: tuple[int, Event], rest: NumberedEvents) -> NumberedEvents:
    yield first
    async for item in rest:
        yield item


async def _wait_for_leaving(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
