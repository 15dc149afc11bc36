"""Find out which model a request is for, whatever form it comes in."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

from starlette.requests import Request

from mllm_npu.serve.api_errors import ApiError
from mllm_npu.serve.forwarding import Asked
from mllm_npu.serve.protocol import REQUEST_ID_HEADER
from mllm_npu.serve.registry import Registry

LONGEST_NAME = 256
REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
FORM_FIELD = re.compile(
    rb'content-disposition: *form-data; *name="?model"? *\r\n'
    rb"(?:[^\r\n]+\r\n)*\r\n(?P<model>[^\r\n]*)\r\n",
    re.IGNORECASE,
)
"""The field ``model`` of a form; the forms pictures come in are large, and nothing else of them
is of interest here."""


async def read_request(request: Request, registry: Registry) -> Asked:
    """Read a request to its end.

    A worker knows its models by their ids: a version, or the default model, is put into words that
    it understands.

    Raises:
        ApiError: the body is not what the path takes, or names its model in another way.
    """
    body = await request.body()
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        model, body = _of_form(body, registry)
    else:
        model, body = _of_json(body, registry)
    return Asked(
        path=request.url.path,
        model=model,
        headers=tuple((name.lower(), value) for name, value in request.headers.raw),
        body=body,
        request_id=request_id(request),
    )


def request_id(request: Request) -> str:
    """The id a request came with, or a new one."""
    given = request.headers.get(REQUEST_ID_HEADER, "")
    return given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _of_json(body: bytes, registry: Registry) -> tuple[str | None, bytes]:
    try:
        values: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise ApiError("The body is not JSON. Send one JSON object.", code="json_invalid") from None
    if not isinstance(values, dict):
        kind = type(values).__name__
        raise ApiError(f"The body is JSON, but a {kind}. Send one object.", code="json_invalid")
    model = _check(values.get("model"))
    name, _ = registry.resolve(model)
    if name == values.get("model") or name is None:
        return model, body
    return model, json.dumps({**values, "model": name}).encode()


def _of_form(body: bytes, registry: Registry) -> tuple[str | None, bytes]:
    found = FORM_FIELD.search(body)
    if found is None:
        return None, body
    model = _check(found["model"].decode("utf-8", "replace"))
    name, _ = registry.resolve(model)
    if model is None or name is None or name == model:
        return model, body
    return model, body[: found.start("model")] + name.encode() + body[found.end("model") :]


def _check(model: object) -> str | None:
    if model is None or model == "":
        return None
    if not isinstance(model, str) or len(model) > LONGEST_NAME:
        raise ApiError(
            f"model is {str(model)[:50]!r}. Give the name of a model, at most {LONGEST_NAME} "
            "characters; /v1/models lists them.",
            param="model",
        )
    return model
