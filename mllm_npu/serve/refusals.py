"""Every way a request can fail, answered in the form of the API it was put to."""

from __future__ import annotations

import logging

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from mllm_npu.errors import RequestError
from mllm_npu.serve.api_errors import ApiError, describe_invalid, error_body
from mllm_npu.serve.legacy_api import ALIAS, FAILED, chunk
from mllm_npu.serve.protocol import CHUNKS, ORIGINAL_GENERATE_PATH
from mllm_npu.serve.security import refusal

_log = logging.getLogger(__name__)

MESSAGES = {
    404: "There is no such path. GET /docs lists what there is.",
    405: "This path takes another method. GET /docs lists what there is.",
}


def add_refusals(app: FastAPI) -> None:
    """Answer failures of an app's endpoints."""

    @app.exception_handler(ApiError)
    async def refuse(request: Request, error: ApiError) -> Response:
        return _tell(request, error)

    @app.exception_handler(RequestError)
    async def refuse_question(request: Request, error: RequestError) -> Response:
        return _tell(request, ApiError(str(error)))

    @app.exception_handler(RequestValidationError)
    async def refuse_form(request: Request, error: RequestValidationError) -> Response:
        message, param = describe_invalid(error.errors())
        return _tell(request, ApiError(message, param=param))

    @app.exception_handler(HTTPException)
    async def refuse_request(request: Request, error: HTTPException) -> Response:
        message = MESSAGES.get(error.status_code, str(error.detail))
        response = _tell(request, ApiError(message, status=error.status_code))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def fail(request: Request, error: Exception) -> Response:
        _log.error("a request to %s failed: %s", request.url.path, error)
        return _tell(
            request, ApiError("The server failed; its log says why.", status=500, code="failed")
        )


def _tell(request: Request, error: ApiError) -> Response:
    if request.url.path not in (ORIGINAL_GENERATE_PATH, ALIAS):
        return refusal(error)
    body = error_body(error.message, status=error.status, param=error.param, code=error.code)
    return Response(
        chunk(body["error"]["message"], error_code=FAILED, error=body["error"]),
        status_code=error.status,
        media_type=CHUNKS,
        headers=error.headers(),
    )
