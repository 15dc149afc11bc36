"""How a worker is: alive, draining or failed, and its figures for Prometheus."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from mllm_npu.serve.api_description import describe_text
from mllm_npu.serve.metrics import CONTENT_TYPE
from mllm_npu.serve.protocol import DRAINING_STATUS, HEALTH_PATH, METRICS_PATH
from mllm_npu.serve.service import service_of

router = APIRouter(tags=["health"])

NOT_WELL = "It takes nothing new"
Status = Literal["ok", "draining", "failed"]


class Health(BaseModel):
    """Whether requests are taken, how many wait, and how many are being answered."""

    status: Status
    queued: int
    running: int


@router.get(HEALTH_PATH, responses={DRAINING_STATUS: {"model": Health, "description": NOT_WELL}})
async def health(request: Request, response: Response) -> Health:
    """200 while requests are taken, 503 once the worker drains or its engine has failed."""
    reception = service_of(request).reception
    load = reception.answerer.stats()
    is_well = not (load.error or reception.draining)
    response.status_code = 200 if is_well else DRAINING_STATUS
    status: Status = "ok" if is_well else "failed" if load.error else "draining"
    return Health(status=status, queued=load.queued, running=load.running)


@router.get(METRICS_PATH, **describe_text("Figures"))
async def metrics(request: Request) -> Response:
    """Figures in Prometheus' text form."""
    return Response(service_of(request).metrics.page(), headers={"content-type": CONTENT_TYPE})
