"""Ask a controller by OpenAI's API and take its reply as typed events while it comes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx

from mllm_npu.serve.page.stream import Event, read_events
from mllm_npu.serve.page.trouble import AskError, Trouble, explained, of_status, parse
from mllm_npu.serve.protocol import CHAT_PATH, MODELS_PATH, bearer

CONNECT_SECONDS = 5.0
LIST_SECONDS = 10.0
SILENT_SECONDS = 1000.0
"""Longest silence within a reply; controller and worker end one before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that may be asked.

    Args:
        name: what a request names.
        draws: whether it makes pictures.
    """

    name: str
    draws: bool = True


class Controller:
    """The one the page asks.

    Args:
        url: its address.
        key: shown to it where the person gives none.
        transport: in place of the network.
    """

    def __init__(
        self,
        *,
        url: str,
        key: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._key = key
        self._client = httpx.AsyncClient(
            base_url=self.url,
            timeout=httpx.Timeout(SILENT_SECONDS, connect=CONNECT_SECONDS),
            # As many as there are people. One that is kept may be closed when it is used again.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            trust_env=False,
            transport=transport,
        )

    async def models(self, *, key: str = "") -> tuple[Model, ...]:
        """What may be asked, by name.

        Args:
            key: of the person; "" takes that of the page.

        Raises:
            AskError: the controller is away, or wants a key.
        """
        headers = self._headers(key)
        with explained(self.url):
            reply = await self._client.get(MODELS_PATH, headers=headers, timeout=LIST_SECONDS)
        if reply.status_code != httpx.codes.OK:
            raise of_status(reply.status_code, reply.content)
        listed = parse(reply.content).get("data")
        models = [
            Model(name=str(entry["id"]), draws=bool(entry.get("draws", True)))
            for entry in (listed if isinstance(listed, list) else ())
            if isinstance(entry, dict) and entry.get("id")
        ]
        return tuple(sorted(models, key=lambda model: model.name))

    async def ask(self, request: dict[str, Any], *, key: str = "") -> AsyncIterator[Event]:
        """Put a request for a chat completion; its events as they come.

        Leaving early closes the connection, which calls the reply off.

        Args:
            request: OpenAI's form.
            key: of the person; "" takes that of the page.

        Raises:
            AskError: there is no reply, or it breaks off.
        """
        headers = self._headers(key)
        with explained(self.url):
            async with self._client.stream(
                "POST", CHAT_PATH, json=request | {"stream": True}, headers=headers
            ) as reply:
                if reply.status_code != httpx.codes.OK:
                    raise of_status(reply.status_code, await reply.aread())
                async for event in read_events(reply.aiter_lines()):
                    yield event

    async def close(self) -> None:
        """Close what is open."""
        await self._client.aclose()

    def _headers(self, key: str) -> dict[str, str]:
        shown = key or self._key or ""
        if not shown.isascii() or not shown.isprintable():
            raise AskError(Trouble.KEY, "A key is one line of ASCII characters.")
        return bearer(shown or None)
