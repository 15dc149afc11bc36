"""Pass a request on to a worker and its reply back, byte by byte as it comes.

Until the first byte of a reply has been sent, a worker that fails or refuses costs nothing but
time: the request goes to another one. After it, the client is told in the form the reply has: an
event of an event stream, a chunk of the original's, or a connection that breaks off. A client that
goes away takes its request with it. A request at which two workers have failed is given up: one
that brings a worker down would bring down all of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

import httpx
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mllm_npu.serve.controller_replies import Reason, cut_message, explain, refuse
from mllm_npu.serve.dispatch import Pick
from mllm_npu.serve.protocol import BUSY_STATUS, DRAINING_STATUS, REQUEST_ID_HEADER, bearer
from mllm_npu.serve.registry import Registry, Worker

CONNECT_SECONDS = 5.0
NOT_PASSED_ON = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization te trailer transfer-encoding "
    b"upgrade date server".split()
)
"""Headers of one connection, and those that whoever answers writes anew."""
NOT_ASKED_ON = NOT_PASSED_ON | {b"host", b"content-length", b"expect"}


class Ending(StrEnum):
    """How a request ended, as it is counted."""

    SERVED = "served"
    REFUSED = "refused"
    NO_WORKER = "no_worker"
    FAILED = "failed"
    CUT = "cut"
    CANCELLED = "cancelled"


class _Fate(StrEnum):
    DONE = "done"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    BROKEN = "broken"
    LATE = "late"
    LEFT = "left"


ENDED = (_Fate.DONE, _Fate.LEFT, _Fate.LATE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that is to be passed on.

    Args:
        path: of the request.
        model: what it names; None where it names none.
        headers: as they came, names in small letters.
        body: as it came.
        request_id: follows the request through the logs.
    """

    path: str
    model: str | None
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    request_id: str


@dataclass(slots=True, kw_only=True)
class _Reply:
    """What has come back so far."""

    send: Send
    begun: float = field(default_factory=time.monotonic)
    first_byte_seconds: float | None = None
    media_type: str = ""
    has_length: bool = False
    last_byte: bytes = b""
    refusal: Response | None = None

    @property
    def is_sent(self) -> bool:
        return self.first_byte_seconds is not None


Tell = Callable[[str, Ending, int, float, float | None], None]
"""Takes path, ending, number of workers tried, seconds, and seconds to the first byte."""


def make_client() -> httpx.AsyncClient:
    """The client that reaches workers.

    A connection is used once: one that is kept may be closed by the worker in the moment it is used
    again, which looks like a worker that died. Proxies of the environment are not for workers.
    """
    return httpx.AsyncClient(
        timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        trust_env=False,
    )


class Forwarder:
    """Puts requests to workers.

    Args:
        client: reaches the workers.
        registry: knows them.
        pick: chooses among those that have the model.
        token: shown to workers in place of the client's key; None passes the key on.
        tell: is told how each request ended.
        max_broken: workers that may fail at a request before it is given up.
        timeout_seconds: longest time from request to last byte.
    """

    def __init__(
        self,
        *,
        client: httpx.AsyncClient,
        registry: Registry,
        pick: Pick,
        token: str | None,
        tell: Tell,
        max_broken: int = 2,
        timeout_seconds: float = 600.0,
    ) -> None:
        self._client, self._registry, self._pick = client, registry, pick
        self._token, self._tell = token, tell
        self._max_broken, self._timeout_seconds = max_broken, timeout_seconds

    async def relay(self, asked: Asked, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request whose body has been read."""
        reply = _Reply(send=send)
        leaving = asyncio.create_task(_disconnect(receive))
        tried: list[Worker] = []
        num_broken, fate, ending = 0, None, Ending.CANCELLED
        try:
            while fate not in ENDED and not reply.is_sent and num_broken < self._max_broken:
                workers = [each for each in self._registry.find(asked.model) if each not in tried]
                if not workers:
                    break
                tried.append(self._pick(workers))
                fate = await self._try(tried[-1], asked, reply, leaving)
                num_broken += fate is _Fate.BROKEN
            ending = await self._end(fate, asked, reply, scope, receive)
        finally:
            leaving.cancel()
            seconds = time.monotonic() - reply.begun
            self._tell(asked.path, ending, len(tried), seconds, reply.first_byte_seconds)

    async def _try(
        self, worker: Worker, asked: Asked, reply: _Reply, leaving: asyncio.Task[None]
    ) -> _Fate:
        """Put a request to one worker; returns when it is answered, or can no longer be."""
        worker.in_flight += 1
        pump = asyncio.create_task(self._pump(worker, asked, reply))
        lost = asyncio.create_task(worker.lost.wait())
        left_seconds = self._timeout_seconds - (time.monotonic() - reply.begun)
        try:
            await asyncio.wait(
                {pump, lost, leaving},
                timeout=max(0.0, left_seconds),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if pump.done():
                return pump.result()
            if leaving.done():
                return _Fate.LEFT
            return _Fate.BROKEN if lost.done() else _Fate.LATE
        finally:
            worker.in_flight -= 1
            lost.cancel()
            pump.cancel()
            await asyncio.gather(pump, lost, return_exceptions=True)

    async def _pump(self, worker: Worker, asked: Asked, reply: _Reply) -> _Fate:
        headers = self._headers_for_worker(asked)
        url = worker.url + asked.path
        try:
            async with self._client.stream(
                "POST", url, headers=headers, content=asked.body
            ) as response:
                if response.status_code in (BUSY_STATUS, DRAINING_STATUS):
                    reply.refusal = await _whole(response)
                    return _Fate.REFUSED
                await self._pass_back(response, worker, reply)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            self._registry.miss(worker)
            return _Fate.UNREACHABLE
        except (httpx.HTTPError, httpx.InvalidURL):
            return _Fate.BROKEN
        return _Fate.DONE

    async def _pass_back(self, response: httpx.Response, worker: Worker, reply: _Reply) -> None:
        chunks = response.aiter_raw()
        first = await anext(chunks, b"")
        self._registry.see(worker)
        reply.first_byte_seconds = time.monotonic() - reply.begun
        reply.media_type = response.headers.get("content-type", "")
        reply.has_length = "content-length" in response.headers
        reply.last_byte = first[-1:]
        await reply.send(
            {
                "type": "http.response.start",
                "status": response.status_code,
                "headers": _headers_for_client(response),
            }
        )
        await reply.send({"type": "http.response.body", "body": first, "more_body": True})
        async for chunk in chunks:
            self._registry.see(worker)
            reply.last_byte = chunk[-1:]
            await reply.send({"type": "http.response.body", "body": chunk, "more_body": True})
        await reply.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _end(
        self, fate: _Fate | None, asked: Asked, reply: _Reply, scope: Scope, receive: Receive
    ) -> Ending:
        """Say what is left to say when no further worker is tried."""
        if fate is _Fate.DONE:
            return Ending.SERVED
        if fate is _Fate.LEFT:
            return Ending.CANCELLED
        reason = Reason.LATE if fate is _Fate.LATE else Reason.BROKEN
        if reply.is_sent:
            message = cut_message(asked.path, reply.media_type, reason, last_byte=reply.last_byte)
            if message is not None and not reply.has_length:
                await reply.send({"type": "http.response.body", "body": message})
            return Ending.CUT
        if reply.refusal is not None and fate is not _Fate.LATE:
            response, ending = reply.refusal, Ending.REFUSED
        elif fate in (_Fate.BROKEN, _Fate.LATE):
            response, ending = refuse(asked.path, explain(reason)), Ending.FAILED
        else:
            offered = sorted(self._registry.offered())
            error = explain(Reason.NO_WORKER, model=asked.model, offered=offered)
            response = refuse(asked.path, error)
            ending = Ending.NO_WORKER
        response.headers.setdefault(REQUEST_ID_HEADER, asked.request_id)
        await response(scope, receive, reply.send)
        return ending

    def _headers_for_worker(self, asked: Asked) -> list[tuple[bytes, bytes]]:
        token = bearer(self._token)
        skipped = NOT_ASKED_ON | {name.encode() for name in (*token, REQUEST_ID_HEADER)}
        passed = [(name, value) for name, value in asked.headers if name not in skipped]
        added = {**token, REQUEST_ID_HEADER: asked.request_id}
        return passed + [(name.encode(), value.encode()) for name, value in added.items()]


class Relayed(Response):
    """A response that is fetched from a worker while it is sent.

    Args:
        forwarder: fetches it.
        asked: the request.
    """

    def __init__(self, forwarder: Forwarder, asked: Asked) -> None:
        super().__init__()
        self._forwarder, self._asked = forwarder, asked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Fetch and send."""
        await self._forwarder.relay(self._asked, scope, receive, send)


async def _disconnect(receive: Receive) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _whole(response: httpx.Response) -> Response:
    body = b"".join([chunk async for chunk in response.aiter_raw()])
    whole = Response(body, status_code=response.status_code)
    whole.raw_headers = _headers_for_client(response)
    return whole


def _headers_for_client(response: httpx.Response) -> list[tuple[bytes, bytes]]:
    named = [(name.lower(), value) for name, value in response.headers.raw]
    return [(name, value) for name, value in named if name not in NOT_PASSED_ON]
