"""Refusals over HTTP: each has a status and a JSON form that OpenAI's clients understand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mllm_npu.errors import MllmNpuError

LONGEST_MESSAGE = 600
"""Characters; what a client has sent is not sent back whole."""

KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "busy_error",
    503: "unavailable_error",
    504: "timeout_error",
}
SERVER_KIND = "server_error"


class ApiError(MllmNpuError):
    """A refusal with its HTTP status.

    Args:
        message: what was asked, what is, what to do.
        status: of the reply.
        param: the part of the request that is refused.
        code: a word for programs.
        retry_after: seconds after which another try is worth it.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.param = param
        self.code = code
        self.retry_after = retry_after

    def headers(self) -> dict[str, str]:
        """Headers that go with the refusal."""
        headers = {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
        return headers | ({"www-authenticate": "Bearer"} if self.status == 401 else {})


def error_kind(status: int) -> str:
    """OpenAI's word for a class of refusals."""
    return KINDS.get(status, SERVER_KIND if status >= 500 else KINDS[400])


def error_body(
    message: str, *, status: int, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """OpenAI's form of a refusal."""
    short = message if len(message) <= LONGEST_MESSAGE else f"{message[:LONGEST_MESSAGE]}…"
    kind = error_kind(status)
    return {"error": {"message": short, "type": kind, "param": param, "code": code}}


def to_json(value: Any) -> str:
    """JSON in ASCII, so that any text a client has sent can be written, half characters too."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"))


def describe_invalid(errors: Sequence[Mapping[str, Any]]) -> tuple[str, str | None]:
    """One sentence about the first thing in a request that does not fit, and where it is.

    Args:
        errors: of pydantic.
    """
    if not errors:
        return "The request does not fit its form.", None
    first = errors[0]
    place = [str(step) for step in first.get("loc", ()) if step != "body"]
    param = ".".join(place)[:200] or None
    said = str(first.get("msg", "does not fit"))
    if first.get("type") == "extra_forbidden":
        said = "There is no such parameter. Check its spelling, or leave it out"
    if first.get("type") == "json_invalid":
        param = None
    more = f" ({len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{param or 'The body'}: {said}.{more}", param
