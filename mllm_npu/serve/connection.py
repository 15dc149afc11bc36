"""The client's side of a reply: has it gone, and has it waited long enough."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from starlette.requests import Request

from mllm_npu.serve.api_errors import ApiError

T = TypeVar("T")

CLIENT_GONE_STATUS = 499
"""Nobody reads it; it stands in the counts."""


async def while_connected(request: Request, work: Awaitable[T], *, seconds: float) -> T:
    """Await work, and call it off when the client goes or the time is over.

    Args:
        request: whose body has been read.
        work: what makes the reply.
        seconds: it may take.

    Raises:
        ApiError: the client has gone, or the time is over.
    """
    making = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_client_leaves(request))
    try:
        await asyncio.wait({making, leaving}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if making.done():
            return making.result()
        if leaving.done():
            raise ApiError("The client has gone.", status=CLIENT_GONE_STATUS)
        raise ApiError(
            f"The reply was not ready within {seconds:g} seconds. Ask for less, or stream it.",
            status=504,
            code="timeout",
        )
    finally:
        for task in (making, leaving):
            task.cancel()
        await asyncio.gather(making, leaving, return_exceptions=True)


async def _client_leaves(request: Request) -> None:
    message: dict[str, Any] = {}
    while message.get("type") != "http.disconnect":
        message = dict(await request.receive())
