"""Ask an application one request within a process, and hand out its messages as it sends them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.types import ASGIApp, Message, Scope

Headers = Sequence[tuple[bytes, bytes]]


def http_scope(*, method: str, path: str, query: bytes, headers: Headers) -> Scope:
    """What an application is told about a request that came over HTTP elsewhere."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query,
        "headers": [(name, value) for name, value in headers],
        "client": None,
        "server": None,
        "state": {},
    }


async def call_app(app: ASGIApp, scope: Scope, body: bytes) -> AsyncIterator[list[Message]]:
    """The messages of a reply; those that wait are handed out together.

    Ending the iteration early calls the request off, as a client does that goes away.

    Args:
        app: what is asked.
        scope: the request.
        body: all of it.
    """
    outbox: asyncio.Queue[Message | None] = asyncio.Queue()
    running = asyncio.ensure_future(app(scope, _inbox(body), outbox.put))
    running.add_done_callback(lambda _: outbox.put_nowait(None))
    is_complete = False
    try:
        while not is_complete:
            taken = [await outbox.get()]
            taken += [outbox.get_nowait() for _ in range(outbox.qsize())]
            is_complete = taken[-1] is None
            messages = [message for message in taken if message is not None]
            if messages:
                yield messages
        running.result()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def _inbox(body: bytes) -> Any:
    """Gives the body once; then waits, for a client that goes is told by calling the task off."""
    given = False

    async def receive() -> Message:
        nonlocal given
        if given:
            await asyncio.Event().wait()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive
