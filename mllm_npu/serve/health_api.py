"""How a worker is: alive or draining, its figures for Prometheus, the page of its API."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from mllm_npu.serve.api_page import render_api
from mllm_npu.serve.metrics import CONTENT_TYPE
from mllm_npu.serve.protocol import DRAINING_STATUS, HEALTH_PATH, METRICS_PATH
from mllm_npu.serve.service import service_of

router = APIRouter(tags=["health"])

PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


@router.get(HEALTH_PATH, responses={DRAINING_STATUS: {"description": "It takes nothing new."}})
async def health(request: Request) -> Response:
    """200 while requests are taken, 503 once the worker drains or its engine has failed."""
    reception = service_of(request).reception
    load = reception.answerer.stats()
    status = "failed" if load.error else "draining" if reception.draining else "ok"
    body: dict[str, Any] = {"status": status, "queued": load.queued, "running": load.running}
    return JSONResponse(body, status_code=200 if status == "ok" else DRAINING_STATUS)


@router.get(METRICS_PATH, response_model=None)
async def metrics(request: Request) -> Response:
    """Figures in Prometheus' text form."""
    return Response(service_of(request).metrics.page(), headers={"content-type": CONTENT_TYPE})


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """The API for people; /openapi.json is the same for programs."""
    page = render_api(request.app.openapi())
    return HTMLResponse(page, headers={"content-security-policy": PAGE_POLICY})
