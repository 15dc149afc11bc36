"""Pass a request on to a replica through Ray, and its reply back as it comes.

Until the first byte of a reply has been sent, a replica that dies or refuses costs nothing but
time. After it, the client is told in the form the reply has. A client that goes away takes its
request with it. A request at which two replicas have died is given up: one that brings a replica
down would bring down all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from mllm_npu.errors import BusyError, ServingError
from mllm_npu.serve.api_errors import ApiError
from mllm_npu.serve.controller_replies import Reason, cut_message, explain, refuse
from mllm_npu.serve.protocol import DRAINING_STATUS, REQUEST_ID_HEADER

PAUSES = (0.0, 0.5, 1.5, 3.0)
"""Seconds before each try; together longer than Ray needs to see that a replica is unwell."""
MAX_BROKEN = 2
BUSY_SECONDS = 1
_ID = REQUEST_ID_HEADER.encode()

Messages = AsyncGenerator[list[Message], None]
Ask = Callable[..., Messages]
"""Puts a request to a model: method, path, query, headers and body, all by name.

What it gives raises ``BusyError`` when too many wait, ``ServingError`` when the replica is gone.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request that is to be passed on.

    Args:
        method: of HTTP.
        path: that is asked.
        query: behind it.
        headers: as they came.
        body: all of it.
    """

    method: str
    path: str
    query: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""

    def put_to(self, ask: Ask) -> Messages:
        """Ask a model."""
        return ask(
            method=self.method,
            path=self.path,
            query=self.query,
            headers=list(self.headers),
            body=self.body,
        )


class _Fate(StrEnum):
    DONE = "done"
    REFUSED = "refused"
    BROKEN = "broken"


class _Reply:
    """What has come back so far."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.is_begun = False
        self.media_type = ""
        self.has_length = False
        self.last_byte = b""
        self.refusal: list[Message] = []

    async def take(self, message: Message) -> None:
        """Pass a message back, unless it belongs to a refusal: another replica may have none."""
        if self.refusal or message.get("status") == DRAINING_STATUS:
            self.refusal.append(message)
        else:
            await self.pass_back(message)

    async def pass_back(self, message: Message) -> None:
        """Send a message to the client."""
        if message["type"] == "http.response.start":
            self.is_begun = True
            # Ray's proxy adds the request's id by itself.
            kept = [(name, value) for name, value in message["headers"] if name != _ID]
            known = dict(kept)
            self.media_type = known.get(b"content-type", b"").decode("latin-1")
            self.has_length = b"content-length" in known
            message = {**message, "headers": kept}
        else:
            self.last_byte = message.get("body", b"")[-1:] or self.last_byte
        await self._send(message)


class Relayed(Response):
    """A response that is fetched from a replica while it is sent.

    Args:
        ask: puts a request to the model.
        request: what is asked.
        seconds: until the reply must have ended.
        count: takes 1 when it begins and -1 when it has ended.
        pauses: seconds before each try.
    """

    def __init__(
        self,
        ask: Ask,
        request: Request,
        *,
        seconds: float,
        count: Callable[[int], None] = lambda _: None,
        pauses: tuple[float, ...] = PAUSES,
    ) -> None:
        super().__init__()
        self._ask, self._request = ask, request
        self._seconds, self._count, self._pauses = seconds, count, pauses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Fetch and send."""
        self._count(1)
        try:
            await self._relay(scope, receive, send)
        finally:
            self._count(-1)

    async def _relay(self, scope: Scope, receive: Receive, send: Send) -> None:
        reply = _Reply(send)
        fetching = asyncio.ensure_future(self._fetch(reply))
        leaving = asyncio.ensure_future(_client_leaves(receive))
        try:
            await asyncio.wait(
                {fetching, leaving}, timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if fetching.done():
                error = fetching.result()
            elif leaving.done():
                return
            else:
                error = explain(Reason.LATE)
        finally:
            for task in (fetching, leaving):
                task.cancel()
            await asyncio.gather(fetching, leaving, return_exceptions=True)
        if error is not None:
            await self._tell(error, reply, scope, receive, send)

    async def _fetch(self, reply: _Reply) -> ApiError | None:
        """Try until there is a reply; what is left to say to the client, if anything is."""
        num_broken = 0
        for pause in self._pauses:
            await asyncio.sleep(pause)
            try:
                fate = await self._try(reply)
            except BusyError as error:
                return ApiError(str(error), status=429, code="busy", retry_after=BUSY_SECONDS)
            num_broken += fate is _Fate.BROKEN
            if fate is _Fate.DONE:
                return None
            if reply.is_begun or num_broken == MAX_BROKEN:
                break
        if reply.refusal and not reply.is_begun:
            for message in reply.refusal:
                await reply.pass_back(message)
            return None
        return explain(Reason.BROKEN)

    async def _try(self, reply: _Reply) -> _Fate:
        reply.refusal = []
        try:
            async with aclosing(self._request.put_to(self._ask)) as batches:
                async for batch in batches:
                    for message in batch:
                        await reply.take(message)
        except ServingError:
            return _Fate.BROKEN
        return _Fate.REFUSED if reply.refusal else _Fate.DONE

    async def _tell(
        self, error: ApiError, reply: _Reply, scope: Scope, receive: Receive, send: Send
    ) -> None:
        path = self._request.path
        if not reply.is_begun:
            await refuse(path, error)(scope, receive, send)
            return
        reason = Reason(str(error.code))
        message = cut_message(path, reply.media_type, reason, last_byte=reply.last_byte)
        if message is None or reply.has_length:
            # Only a connection that breaks off tells that something is missing.
            raise ServingError(error.message)
        await send({"type": "http.response.body", "body": message})


async def _client_leaves(receive: Receive) -> None:
    message: dict[str, Any] = {}
    while message.get("type") != "http.disconnect":
        message = dict(await receive())
