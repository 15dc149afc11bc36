"""Count every request by path and status, and give each an id that is sent back."""

from __future__ import annotations

import re
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mllm_npu.serve.api_errors import error_kind
from mllm_npu.serve.metrics import Metrics
from mllm_npu.serve.protocol import (
    FORWARDED_PATHS,
    HEALTH_PATH,
    METRICS_PATH,
    MODELS_PATH,
    ORIGINAL_STATUS_PATH,
    REQUEST_ID_HEADER,
)

COUNTED_PATHS = frozenset(
    {*FORWARDED_PATHS, HEALTH_PATH, METRICS_PATH, MODELS_PATH, ORIGINAL_STATUS_PATH}
)
OTHER = "other"
_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
FAILED_STATUS = 500
SAFE_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))


class Accounting:
    """Outermost of what a request passes.

    Args:
        app: what answers.
        metrics: what is counted.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        number = request_id(scope)
        status = FAILED_STATUS

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = (REQUEST_ID_HEADER.encode(), number.encode())
                message["headers"] = [*message.get("headers", ()), own, *SAFE_HEADERS]
            await send(message)

        try:
            await self.app(scope, receive, counted)
        finally:
            path = scope["path"] if scope["path"] in COUNTED_PATHS else OTHER
            self.metrics.requests.labels(path, str(status)).inc()
            if status >= 400:
                self.metrics.errors.labels(error_kind(status)).inc()


def request_id(scope: Scope) -> str:
    """The id a request came with, where it is a plain word; else a new one."""
    given = dict(scope["headers"]).get(REQUEST_ID_HEADER.encode(), b"").decode("latin-1")
    return given if _ID.fullmatch(given) else uuid.uuid4().hex
