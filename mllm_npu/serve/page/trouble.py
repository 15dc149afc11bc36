"""What goes wrong between the page and its controller, in kinds that a person can act on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

import httpx

from mllm_npu.errors import MllmNpuError
from mllm_npu.serve.api_errors import error_kind

LONGEST_MESSAGE = 600


class Trouble(StrEnum):
    """Kinds of trouble; each has a sentence in every language."""

    AWAY = "away"
    KEY = "key"
    BUSY = "busy"
    ABSENT = "absent"
    LATE = "late"
    REFUSED = "refused"
    FAILED = "failed"
    CUT = "cut"


_OF_STATUS = {
    401: Trouble.KEY,
    403: Trouble.KEY,
    429: Trouble.BUSY,
    503: Trouble.ABSENT,
    504: Trouble.LATE,
}


_OF_KIND = {
    error_kind(401): Trouble.KEY,
    error_kind(400): Trouble.REFUSED,
    error_kind(429): Trouble.BUSY,
    error_kind(503): Trouble.ABSENT,
    error_kind(504): Trouble.LATE,
}


class AskError(MllmNpuError):
    """A question that got no whole reply.

    Args:
        trouble: its kind.
        said: the server's own words; its address where nobody answers there.
    """

    def __init__(self, trouble: Trouble, said: str = "") -> None:
        super().__init__(f"{trouble}: {said}")
        self.trouble = trouble
        self.said = said[:LONGEST_MESSAGE]


def of_status(status: int, body: bytes) -> AskError:
    """What a reply with another status than 200 means."""
    kind = Trouble.FAILED if status >= 500 else Trouble.REFUSED
    return AskError(_OF_STATUS.get(status, kind), message_of(parse(body)) or f"HTTP {status}")


def of_stream(body: dict[str, Any]) -> AskError:
    """What a failure that is told inside a stream means."""
    error = body.get("error")
    kind = error.get("type") if isinstance(error, dict) else None
    return AskError(_OF_KIND.get(str(kind), Trouble.FAILED), message_of(body))


def message_of(body: dict[str, Any]) -> str:
    """The server's words in OpenAI's form of a refusal; "" where there are none."""
    error = body.get("error")
    said = error.get("message") if isinstance(error, dict) else error
    return said if isinstance(said, str) else ""


def parse(body: bytes | str) -> dict[str, Any]:
    """A JSON object; an empty one where it is anything else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Tell what the network does as trouble.

    Args:
        url: of the server.

    Raises:
        AskError: it is not reached, takes too long or breaks off.
    """
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise AskError(Trouble.AWAY, url) from error
    except httpx.TimeoutException as error:
        raise AskError(Trouble.LATE, url) from error
    except httpx.HTTPError as error:
        raise AskError(Trouble.CUT, str(error) or type(error).__name__) from error
