"""What a client hears when no worker answers: whole replies, and ends of those that have begun."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from starlette.responses import Response

from mllm_npu.serve.api_errors import ApiError, error_body, to_json
from mllm_npu.serve.protocol import (
    CHUNKS,
    EVENT_STREAM,
    HEARTBEAT_SECONDS,
    ORIGINAL_GENERATE_PATH,
)
from mllm_npu.serve.security import refusal

ORIGINAL_ALIAS = "/generate"
ORIGINAL_PATHS = (ORIGINAL_GENERATE_PATH, ORIGINAL_ALIAS)
SEPARATOR = b"\0"
"""Ends a chunk of the original's replies."""
ORIGINAL_NO_WORKER, ORIGINAL_FAILED = 2, 3
"""What the original's clients find under ``error_code``."""


class Reason(StrEnum):
    """Why a worker's reply is not there."""

    NO_WORKER = "no_worker"
    BROKEN = "worker_failed"
    LATE = "timeout"


STATUS = {Reason.NO_WORKER: 503, Reason.BROKEN: 502, Reason.LATE: 504}
MESSAGES = {
    Reason.BROKEN: "The worker failed while it made the reply. Send the request again.",
    Reason.LATE: "The reply took longer than this controller waits. Ask for less, or raise "
    "its --timeout.",
}


def explain(reason: Reason, *, model: str | None = None, offered: Sequence[str] = ()) -> ApiError:
    """The refusal for a reason.

    Args:
        reason: why there is no reply.
        model: what was asked for.
        offered: what may be asked for.
    """
    retry_after = None if reason is Reason.LATE else int(HEARTBEAT_SECONDS)
    message = MESSAGES.get(reason) or _no_worker(model, offered)
    param = "model" if reason is Reason.NO_WORKER and model else None
    return ApiError(
        message, status=STATUS[reason], param=param, code=reason.value, retry_after=retry_after
    )


def refuse(path: str, error: ApiError) -> Response:
    """A reply that has not begun, in the form that clients of a path read."""
    if path not in ORIGINAL_PATHS:
        return refusal(error)
    return Response(
        original_chunk(error),
        status_code=error.status,
        media_type=CHUNKS,
        headers=error.headers(),
    )


def original_chunk(error: ApiError) -> bytes:
    """A refusal as a chunk of the original's."""
    number = ORIGINAL_NO_WORKER if error.code == Reason.NO_WORKER else ORIGINAL_FAILED
    body = error_body(error.message, status=error.status, param=error.param, code=error.code)
    said = {"text": body["error"]["message"], "error_code": number, **body}
    return to_json(said).encode() + SEPARATOR


def cut_message(path: str, media_type: str, reason: Reason, *, last_byte: bytes) -> bytes | None:
    """The end of a reply that cannot be finished.

    Args:
        path: that was asked.
        media_type: of a reply whose length was not told.
        reason: why it ends here.
        last_byte: last that was sent.

    Returns:
        What is to be sent; None where the reply's form has no room for it, so that only breaking
        the connection off says that something is missing.
    """
    error = explain(reason)
    if media_type.startswith(EVENT_STREAM):
        body = error_body(error.message, status=error.status, code=error.code)
        # Two line ends close an event that was cut in the middle; more of them mean nothing.
        return b"\n\ndata: " + to_json(body).encode() + b"\n\ndata: [DONE]\n\n"
    if path in ORIGINAL_PATHS:
        return (b"" if last_byte in (b"", SEPARATOR) else SEPARATOR) + original_chunk(error)
    return None


def _no_worker(model: str | None, offered: Sequence[str]) -> str:
    here = f"here is {', '.join(offered[:20])}" if offered else "no worker is here"
    asked = f"Model {model[:100]!r}" if model else "A model"
    todo = "Name one of these" if offered and model else "Start a worker, or wait until it is ready"
    return f"{asked} was asked for, {here}. {todo}."
