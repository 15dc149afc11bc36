"""Who may ask and how much: API keys compared in constant time, bodies cut off at a limit."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mllm_npu.errors import ConfigError
from mllm_npu.serve.api_errors import ApiError, error_body, to_json

KEYS_VARIABLE = "MLLM_NPU_API_KEYS"
TOKEN_VARIABLE = "MLLM_NPU_WORKER_TOKEN"
SHORTEST_KEY = 8
OPEN_PATHS = frozenset({"/health", "/docs", "/openapi.json"})
"""They tell nothing about what was asked."""


class ApiKeys:
    """The keys that open a server; without any it is open to whoever reaches it.

    Only their digests are kept, and each is compared, so that time tells nothing.

    Args:
        keys: as clients send them.

    Raises:
        ConfigError: one is too short to be a secret.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        given = [key.strip() for key in keys if key.strip()]
        if any(len(key) < SHORTEST_KEY for key in given):
            raise ConfigError(
                f"An API key of fewer than {SHORTEST_KEY} characters was given. Make a longer one, "
                "for example: python -c 'import secrets; print(secrets.token_urlsafe())'"
            )
        self._digests = tuple(_digest(key) for key in given)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def admit(self, key: str) -> bool:
        """Whether a key is among them."""
        digest = _digest(key)
        return sum(hmac.compare_digest(digest, known) for known in self._digests) > 0


def read_keys(
    file: Path | None = None, *, variables: Mapping[str, str] = os.environ
) -> tuple[str, ...]:
    """API keys from a file, one a line, and from the environment, separated by commas.

    Lines that are empty or begin with ``#`` are passed over.

    Raises:
        ConfigError: the file cannot be read, or holds no key.
    """
    keys = [key for key in variables.get(KEYS_VARIABLE, "").split(",") if key.strip()]
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"API keys were to be read from {file}: {error}. Give a text file with one a line."
            ) from error
        found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not found:
            raise ConfigError(f"{file} holds no API key. Write one a line.")
        keys.extend(found)
    return tuple(key.strip() for key in keys)


def read_token(given: str | None, *, variables: Mapping[str, str] = os.environ) -> str | None:
    """The token that workers and their controller share: as given, else of the environment."""
    return given or variables.get(TOKEN_VARIABLE) or None


class KeyGuard:
    """Lets a request pass whose ``Authorization: Bearer`` holds a key; the others get a 401.

    Args:
        app: what is guarded.
        keys: all that open it.
        open_paths: paths that need none.
    """

    def __init__(
        self, app: ASGIApp, *, keys: ApiKeys, open_paths: frozenset[str] = OPEN_PATHS
    ) -> None:
        self.app = app
        self.keys = keys
        self.open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or not self.keys or scope["path"] in self.open_paths:
            await self.app(scope, receive, send)
            return
        if self.keys.admit(_bearer_of(scope)):
            await self.app(scope, receive, send)
            return
        error = ApiError(
            "An API key is needed, this request has none that is known. "
            "Send it as Authorization: Bearer KEY.",
            status=401,
            code="invalid_api_key",
        )
        await refusal(error)(scope, receive, send)


class BodyLimit:
    """Refuses a body that is too long, or too slow to arrive, before it is parsed.

    Args:
        app: what is guarded.
        max_bytes: of a body.
        seconds: until it has arrived.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, seconds: float) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared[:20]) > self.max_bytes:
            await refusal(self._too_long())(scope, receive, send)
            return
        deadline = asyncio.get_running_loop().time() + self.seconds
        taken, complete = 0, False

        async def limited() -> Message:
            nonlocal taken, complete
            if complete:  # what comes now is that the client goes
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, "The request did not arrive in time.") from None
            taken += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if taken > self.max_bytes:
                raise HTTPException(413, self._too_long().message)
            return message

        await self.app(scope, limited, send)

    def _too_long(self) -> ApiError:
        return ApiError(
            f"The request is longer than {self.max_bytes} bytes. Send smaller or fewer pictures.",
            status=413,
            code="request_too_large",
        )


def refusal(error: ApiError) -> Response:
    """The reply that tells a refusal."""
    body: dict[str, Any] = error_body(
        error.message, status=error.status, param=error.param, code=error.code
    )
    return Response(
        to_json(body),
        status_code=error.status,
        media_type="application/json",
        headers=error.headers(),
    )


def _bearer_of(scope: Scope) -> str:
    header = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
    kind, _, key = header.partition(" ")
    return key.strip() if kind.lower() == "bearer" else ""


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
