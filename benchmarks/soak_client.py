"""One client of the soak: asks again and again in different ways, and sometimes leaves."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
import time
from collections import Counter
from typing import Any

import httpx
from PIL import Image

CHAT, DRAW, ORIGINAL = "/v1/chat/completions", "/v1/images/generations", "/worker_generate"
LEAVES = 0.3
"""Share of requests whose client does not wait for the end."""
LONGEST_STAY_SECONDS = 3.0
PAUSE_SECONDS = 0.5
"""After an error, as a client in good manners does."""


class Client:
    """Asks until its time is over.

    Args:
        http: reaches the controller.
        outcomes: counts how requests ended: done, error, broken, left, lost, hung.
        chance: what is asked, and when it leaves.
        patience: seconds after which a reply counts as hung.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        outcomes: Counter[str],
        *,
        chance: random.Random,
        patience: float,
    ) -> None:
        self.http, self.outcomes = http, outcomes
        self.chance, self.patience = chance, patience

    async def ask_for(self, seconds: float) -> None:
        """Ask one request after the other."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            outcome = await self.ask()
            self.outcomes[outcome] += 1
            if outcome not in ("done", "left"):
                await asyncio.sleep(PAUSE_SECONDS * (1 + self.chance.random()))

    async def ask(self) -> str:
        """Put one request; how it ended."""
        path, body = self._question()
        stay = self.patience
        leaves = self.chance.random() < LEAVES
        if leaves:
            stay = LONGEST_STAY_SECONDS * self.chance.random()
        try:
            async with asyncio.timeout(stay):
                return await self._read(path, body)
        except TimeoutError:
            return "left" if leaves else "hung"
        except httpx.HTTPError:
            return "broken"

    async def _read(self, path: str, body: dict[str, Any]) -> str:
        async with self.http.stream("POST", path, json=body) as reply:
            content = b"".join([chunk async for chunk in reply.aiter_raw()])
        if reply.status_code >= 400:
            return "error" if b"error" in content else "lost"
        if path == ORIGINAL:
            return of_chunks(content)
        if body.get("stream"):
            return of_events(content)
        return "done" if is_json(content) else "lost"

    def _question(self) -> tuple[str, dict[str, Any]]:
        kind = self.chance.random()
        tokens = self.chance.randint(1, 48)
        if kind < 0.15:
            drawing = self.chance.random() < 0.3
            text = "draw a seven" if drawing else "which digit is this?"
            picture = "" if drawing else picture_as_base64(self.chance)
            asked = {"input_text": text, "image": picture, "image_gen": drawing}
            return ORIGINAL, {**asked, "max_new_tokens": tokens}
        if kind < 0.25:
            return DRAW, {"prompt": "draw a seven", "image_steps": self.chance.randint(1, 4)}
        content: Any = "which digit is this? " * self.chance.randint(1, 3)
        if kind < 0.5:
            url = f"data:image/png;base64,{picture_as_base64(self.chance)}"
            image = {"type": "image_url", "image_url": {"url": url}}
            content = [image, {"type": "text", "text": content}]
        return CHAT, {
            "messages": [{"role": "user", "content": content}],
            "max_tokens": tokens,
            "stream": self.chance.random() < 0.7,
            "images": "forbid",
        }


def of_events(content: bytes) -> str:
    """How a stream of events ended."""
    if b'data: {"error"' in content:
        return "error"
    return "done" if content.endswith(b"data: [DONE]\n\n") else "lost"


def of_chunks(content: bytes) -> str:
    """How a reply of the original's ended."""
    *chunks, rest = content.split(b"\0")
    if rest or not chunks or not is_json(chunks[-1]):
        return "lost"
    return "error" if json.loads(chunks[-1])["error_code"] else "done"


def is_json(content: bytes) -> bool:
    """Whether a reply is whole."""
    try:
        json.loads(content)
    except ValueError:
        return False
    return True


def picture_as_base64(chance: random.Random) -> str:
    """A small picture of some grey."""
    size = (chance.randint(16, 64), chance.randint(16, 64))
    buffer = io.BytesIO()
    Image.new("RGB", size, (chance.randrange(256),) * 3).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()
