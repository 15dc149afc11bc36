"""What anybody may look at: models, health, figures, and the description of what is passed on."""

from __future__ import annotations

import time
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import Response

from mllm_npu.serve.api_description import describe as describe_route
from mllm_npu.serve.api_description import describe_body, describe_text
from mllm_npu.serve.api_errors import ApiError
from mllm_npu.serve.controller_metrics import ControllerMetrics
from mllm_npu.serve.openai_replies import Model, ModelList
from mllm_npu.serve.protocol import (
    HEALTH_PATH,
    METRICS_PATH,
    MODELS_PATH,
    ORIGINAL_GENERATE_PATH,
    ModelCard,
)
from mllm_npu.serve.registry import Registry

TEXT = "text/plain; version=0.0.4; charset=utf-8"
TOO_FEW = "There are fewer workers than were asked for"


class Health(BaseModel):
    """Whether there are enough workers, how many there are, and with what they answer."""

    status: Literal["ok", "waiting for workers"]
    workers: int
    models: list[str]


class WorkerState(BaseModel):
    """A worker as the controller knows it; models as ``id@version``."""

    url: str
    models: list[str]
    load: int
    in_flight: int
    draining: bool


def public_routes(*, registry: Registry, metrics: ControllerMetrics) -> APIRouter:
    """Pages about the controller itself.

    Args:
        registry: the workers.
        metrics: the figures.
    """
    routes = APIRouter(tags=["pages"])
    since = int(time.time())

    @routes.get(HEALTH_PATH, responses={503: {"model": Health, "description": TOO_FEW}})
    async def health(response: Response, workers: int = 0) -> Health:
        """Well; with ``?workers=2`` only if at least that many workers are here."""
        registry.remove_silent()
        enough = len(registry) >= workers
        response.status_code = 200 if enough else 503
        return Health(
            status="ok" if enough else "waiting for workers",
            workers=len(registry),
            models=sorted(registry.offered()),
        )

    @routes.get(METRICS_PATH, **describe_text("Figures"))
    async def figures() -> Response:
        """Figures in Prometheus' text form."""
        return Response(metrics.page(), media_type=TEXT)

    @routes.get("/workers")
    async def workers() -> list[WorkerState]:
        """The workers behind this address."""
        registry.remove_silent()
        return [
            WorkerState(
                url=worker.url,
                models=[f"{card.id}@{card.version}" for card in worker.models],
                load=worker.load,
                in_flight=worker.in_flight,
                draining=worker.draining,
            )
            for worker in registry
        ]

    @routes.get(MODELS_PATH)
    async def models() -> ModelList:
        """The models behind this address; ``id@version`` where there are several versions."""
        registry.remove_silent()
        cards = [describe(*entry, since) for entry in registry.offered().items()]
        return ModelList.model_validate({"data": cards})

    @routes.get(f"{MODELS_PATH}/{{model:path}}")
    async def retrieve_model(model: str) -> Model:
        """One model."""
        registry.remove_silent()
        offered = registry.offered()
        if model not in offered:
            here = ", ".join(sorted(offered)) or "none yet"
            raise ApiError(
                f"Model {model[:100]!r} was asked for, here is {here}.",
                status=404,
                param="model",
                code="model_not_found",
            )
        return Model.model_validate(describe(model, offered[model], since))

    return routes


def describe(name: str, card: ModelCard, since: int) -> dict[str, Any]:
    """A model in OpenAI's form, and what this package knows beyond it."""
    return Model(created=since, **card.model_dump() | {"id": name}).model_dump()


def describe_forwarded(path: str) -> dict[str, Any]:
    """How a path that is passed on appears in the description: as it does in a worker's."""
    tag = "original" if path == ORIGINAL_GENERATE_PATH else "OpenAI"
    return {**describe_route(path), "openapi_extra": describe_body(path), "tags": [tag]}
