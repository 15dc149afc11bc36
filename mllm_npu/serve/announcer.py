"""Tell the controller about this worker: register, stay alive in its eyes, say farewell."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from mllm_npu.serve.protocol import (
    HEARTBEAT_PATH,
    HEARTBEAT_SECONDS,
    REGISTER_PATH,
    UNREGISTER_PATH,
    Farewell,
    Heartbeat,
    HeartbeatTaken,
    Registered,
    Registration,
    bearer,
)

CALL_SECONDS = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds between tries to register; each is twice the one before."""

_log = logging.getLogger(__name__)

Answer = TypeVar("Answer", bound=BaseModel)


class Announcer:
    """Keeps a worker known to its controller, whichever of the two is started again.

    Args:
        controller: address of the controller.
        registration: what the worker is.
        beat: makes a heartbeat of how it is now.
        token: that controller and workers share.
    """

    def __init__(
        self,
        *,
        controller: str,
        registration: Registration,
        beat: Callable[[], Heartbeat],
        token: str | None = None,
    ) -> None:
        self.controller = controller.rstrip("/")
        self.registration = registration
        self.beat = beat
        self.headers = bearer(token)
        self.known = False

    async def run(self) -> None:
        """Register and send heartbeats until the task is cancelled."""
        async with self._client() as client:
            while True:
                seconds = await self._register(client)
                await self._stay_known(client, seconds)

    async def leave(self) -> None:
        """Say farewell; what the controller does not hear it notices by the silence."""
        async with self._client() as client:
            farewell = Farewell(url=self.registration.url)
            await self._call(client, UNREGISTER_PATH, farewell, HeartbeatTaken)
        self.known = False

    async def _register(self, client: httpx.AsyncClient) -> float:
        pause = FIRST_PAUSE
        while True:
            taken = await self._call(client, REGISTER_PATH, self.registration, Registered)
            if taken is not None:
                self.known = True
                _log.info("registered with %s", self.controller)
                return taken.heartbeat_seconds
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _stay_known(self, client: httpx.AsyncClient, seconds: float) -> None:
        while self.known:
            await asyncio.sleep(seconds)
            taken = await self._call(client, HEARTBEAT_PATH, self.beat(), HeartbeatTaken)
            # Silence is no answer: a controller that is started again says that it knows nothing.
            self.known = taken is None or taken.known

    async def _call(
        self, client: httpx.AsyncClient, path: str, said: BaseModel, answer: type[Answer]
    ) -> Answer | None:
        try:
            reply = await client.post(
                self.controller + path,
                content=said.model_dump_json(),
                headers={**self.headers, "content-type": "application/json"},
            )
            reply.raise_for_status()
            return answer.model_validate_json(reply.content)
        except (httpx.HTTPError, ValidationError) as error:
            _log.warning("%s%s: %s", self.controller, path, error)
            return None

    def _client(self) -> httpx.AsyncClient:
        seconds = min(CALL_SECONDS, HEARTBEAT_SECONDS)
        return httpx.AsyncClient(timeout=seconds, trust_env=False)
