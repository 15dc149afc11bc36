"""What anybody may look at: models, health, figures, and the description of what is passed on."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from mllm_npu.serve.api_errors import ApiError
from mllm_npu.serve.controller_metrics import ControllerMetrics
from mllm_npu.serve.protocol import (
    CHAT_PATH,
    EDIT_IMAGES_PATH,
    GENERATE_IMAGES_PATH,
    HEALTH_PATH,
    METRICS_PATH,
    MODELS_PATH,
    ModelCard,
)
from mllm_npu.serve.registry import Registry

TEXT = "text/plain; version=0.0.4; charset=utf-8"
REFUSALS = {
    400: "The request does not fit its form",
    401: "An API key is needed",
    413: "The request is too long",
    429: "All workers are busy",
    502: "The worker failed",
    503: "No worker has the model",
    504: "The reply took too long",
}
SUMMARIES = {
    CHAT_PATH: "Chat completions in OpenAI's form",
    GENERATE_IMAGES_PATH: "Draw pictures, in OpenAI's form",
    EDIT_IMAGES_PATH: "Change pictures, in OpenAI's form",
}
ORIGINAL_SUMMARY = "The original's form: chunks of JSON, each ended by a 0 byte"


def public_routes(*, registry: Registry, metrics: ControllerMetrics) -> APIRouter:
    """Pages about the controller itself.

    Args:
        registry: the workers.
        metrics: the figures.
    """
    routes = APIRouter(tags=["pages"])
    since = int(time.time())

    @routes.get(HEALTH_PATH)
    async def health(response: Response, workers: int = 0) -> dict[str, Any]:
        """Well; with ``?workers=2`` only if at least that many workers are here."""
        registry.remove_silent()
        enough = len(registry) >= workers
        response.status_code = 200 if enough else 503
        status = "ok" if enough else "waiting for workers"
        return {"status": status, "workers": len(registry), "models": sorted(registry.offered())}

    @routes.get(METRICS_PATH, response_class=Response)
    async def figures() -> Response:
        return Response(metrics.page(), media_type=TEXT)

    @routes.get("/workers")
    async def workers() -> list[dict[str, Any]]:
        registry.remove_silent()
        return [
            {
                "url": worker.url,
                "models": [f"{card.id}@{card.version}" for card in worker.models],
                "load": worker.load,
                "in_flight": worker.in_flight,
                "draining": worker.draining,
            }
            for worker in registry
        ]

    @routes.get(MODELS_PATH)
    async def models() -> dict[str, Any]:
        registry.remove_silent()
        offered = registry.offered()
        return {"object": "list", "data": [describe(*entry, since) for entry in offered.items()]}

    @routes.get(f"{MODELS_PATH}/{{name:path}}")
    async def model(name: str) -> dict[str, Any]:
        registry.remove_silent()
        offered = registry.offered()
        if name not in offered:
            here = ", ".join(sorted(offered)) or "none yet"
            raise ApiError(
                f"Model {name[:100]!r} was asked for, here is {here}.",
                status=404,
                param="model",
                code="model_not_found",
            )
        return describe(name, offered[name], since)

    return routes


def describe(name: str, card: ModelCard, since: int) -> dict[str, Any]:
    """A model in OpenAI's form, and what this package knows beyond it."""
    return {
        "id": name,
        "object": "model",
        "created": since,
        "owned_by": "mllm-npu",
        "version": card.version,
        "draws": card.draws,
        "max_tokens": card.max_tokens,
    }


def describe_forwarded(path: str) -> dict[str, Any]:
    """How a path that is passed on appears on the OpenAPI page."""
    media_type = "multipart/form-data" if path == EDIT_IMAGES_PATH else "application/json"
    model = {"type": "string", "description": "see /v1/models; absent takes the default model"}
    schema = {
        "type": "object",
        "properties": {"model": model},
        "additionalProperties": True,
        "description": "The whole form is on the page of a worker: /docs there.",
    }
    return {
        "summary": SUMMARIES.get(path, ORIGINAL_SUMMARY),
        "tags": ["models"],
        "response_class": Response,
        "responses": {status: {"description": text} for status, text in REFUSALS.items()},
        "openapi_extra": {
            "requestBody": {"required": True, "content": {media_type: {"schema": schema}}}
        },
        "name": path.strip("/").replace("/", "_"),
    }
