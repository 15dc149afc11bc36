"""Stands before Gradio: a browser names only files of the page, and nothing is fetched for it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BYTES = 4 * 1024 * 1024
"""Of a request that is no file: texts and names."""
_UPLOAD = "/gradio_api/upload"
_FETCHED = ("/gradio_api/file=http", "/gradio_api/proxy=")


class FileGuard:
    """Refuses requests whose files are not the page's own.

    Gradio takes a file that a browser names by its path, and fetches one named by an address.

    Args:
        app: what is guarded.
        folders: where the page's files are.
        max_bytes: of a request that is no file.
    """

    def __init__(
        self, app: ASGIApp, *, folders: Sequence[Path], max_bytes: int = MAX_BYTES
    ) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self._folders = [folder.resolve() for folder in folders]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path: str = scope["path"]
        if any(fetched in path for fetched in _FETCHED):
            await _refuse(404, "Nothing is fetched here.", scope, receive, send)
            return
        if scope["method"] != "POST" or path.endswith(_UPLOAD):
            await self.app(scope, receive, send)
            return
        body = b""
        more = True
        while more and len(body) <= self.max_bytes:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if len(body) > self.max_bytes:
            await _refuse(413, "The request is too long.", scope, receive, send)
        elif not self._names_own_files(body):
            await _refuse(400, "A file of a request must be uploaded first.", scope, receive, send)
        else:
            await self.app(scope, _again(body, receive), send)

    def _names_own_files(self, body: bytes) -> bool:
        try:
            value = json.loads(body) if body else None
        except (ValueError, RecursionError):  # Gradio could not read it either
            return False
        return all(map(self._is_own, _paths(value)))

    def _is_own(self, path: Any) -> bool:
        if not isinstance(path, str) or "\0" in path:
            return False
        place = Path(path).resolve()
        return any(place.is_relative_to(folder) for folder in self._folders)


def _paths(value: Any) -> Iterator[Any]:
    """What is under ``path`` anywhere in a JSON value, but for None."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            if each.get("path") is not None:
                yield each["path"]
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each


def _again(body: bytes, receive: Receive) -> Receive:
    """Give a body that was read once more, then what else comes."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def give() -> Message:
        return first.pop() if first else await receive()

    return give


async def _refuse(status: int, said: str, scope: Scope, receive: Receive, send: Send) -> None:
    await JSONResponse({"detail": said}, status_code=status)(scope, receive, send)
