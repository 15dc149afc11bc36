"""The address that clients reach on Ray Serve: one for all models, each chosen by its name."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from mllm_npu import __version__
from mllm_npu.errors import ConfigError
from mllm_npu.serve.api_errors import ApiError, describe_invalid
from mllm_npu.serve.controller_pages import describe
from mllm_npu.serve.controller_replies import ORIGINAL_ALIAS, refuse
from mllm_npu.serve.controller_request import read_request
from mllm_npu.serve.limits import Limits
from mllm_npu.serve.protocol import (
    FORWARDED_PATHS,
    HEALTH_PATH,
    METRICS_PATH,
    MODELS_PATH,
    ORIGINAL_STATUS_PATH,
)
from mllm_npu.serve.ray_forwarding import Relayed
from mllm_npu.serve.ray_forwarding import Request as Passed
from mllm_npu.serve.ray_handle import ModelHandle
from mllm_npu.serve.ray_models import Models, unknown_model
from mllm_npu.serve.security import KEYS_VARIABLE, ApiKeys, BodyLimit, KeyGuard, read_keys
from mllm_npu.serve.worker import parse, read_limits

TITLE = "mllm-npu on Ray Serve"
_RUNNING = "RUNNING"


class Front:
    """The deployment that clients reach.

    Args:
        models: handles of the models, by name.
        worker: options of the workers, of which the limits count here too.
        api_keys: file with the keys of clients.
        needs_keys: whether there must be one.

    Raises:
        ConfigError: the keys cannot be read, or there are none.
    """

    def __init__(
        self,
        models: Mapping[str, DeploymentHandle[Any]],
        *,
        worker: Sequence[str],
        api_keys: str | None,
        needs_keys: bool,
    ) -> None:
        keys = read_keys(None if api_keys is None else Path(api_keys))
        if needs_keys and not keys:
            raise ConfigError(
                "The service was to be opened by keys only, and there are none on this machine. "
                f"Name a file that all machines have, or set {KEYS_VARIABLE} where Ray is started."
            )
        self._keys, self._limits = ApiKeys(keys), read_limits(parse(list(worker)))
        self._models = {name: ModelHandle(handle) for name, handle in models.items()}

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Called by Ray for the application."""
        models = Models(self._models, count_replicas=count_replicas)
        return build_front(models, keys=self._keys, limits=self._limits)


def count_replicas() -> dict[str, int]:
    """How many replicas of each deployment run."""
    status: Any = serve.status().applications.get(serve.get_replica_context().app_name)
    if status is None:
        return {}
    return {
        name: deployment.replica_states.get(_RUNNING, 0)
        for name, deployment in status.deployments.items()
    }


def build_front(models: Models, *, keys: ApiKeys, limits: Limits) -> FastAPI:
    """The application of the front.

    Args:
        models: that it passes requests on to.
        keys: one of which every request must hold; none: it is open.
        limits: of a request; the replicas keep to them too.
    """
    app = FastAPI(title=TITLE, version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    _add_models(app, models)
    _add_states(app, models)
    _add_forwarding(app, models, limits)
    _add_refusals(app)
    # The last one added is passed first.
    app.add_middleware(BodyLimit, max_bytes=limits.max_body_bytes, seconds=limits.body_seconds)
    app.add_middleware(KeyGuard, keys=keys)
    return app


def _add_forwarding(app: FastAPI, models: Models, limits: Limits) -> None:
    async def forward(request: Request) -> Response:
        asked = await read_request(request, models.registry)
        passed = Passed(method="POST", path=asked.path, headers=asked.headers, body=asked.body)
        return Relayed(
            models.find(asked.model).ask,
            passed,
            seconds=limits.request_seconds,
            count=models.count_open,
        )

    async def show(request: Request) -> Response:
        """The page of the API is that of a replica: it has the same endpoints."""
        passed = Passed(method="GET", path=request.url.path)
        return Relayed(models.default.ask, passed, seconds=limits.body_seconds)

    for path in (*FORWARDED_PATHS, ORIGINAL_ALIAS):
        app.post(path, response_model=None)(forward)
    for path in ("/docs", "/openapi.json"):
        app.get(path, response_model=None)(show)


def _add_models(app: FastAPI, models: Models) -> None:
    since = int(time.time())

    @app.get(MODELS_PATH)
    async def list_models() -> dict[str, Any]:
        cards = await models.cards()
        return {"object": "list", "data": [describe(*entry, since) for entry in cards.items()]}

    @app.get(MODELS_PATH + "/{name:path}")
    async def retrieve_model(name: str) -> dict[str, Any]:
        cards = await models.cards()
        if name not in cards:
            raise unknown_model(name, cards)
        return describe(name, cards[name], since)

    @app.post("/list_models")
    async def list_original_models() -> dict[str, list[str]]:
        return {"models": sorted(models.registry.offered())}

    @app.post("/get_worker_address")
    async def get_worker_address(request: Request) -> dict[str, str]:
        """All models are at the address at which this one was reached."""
        return {"address": str(request.base_url).rstrip("/")}


def _add_states(app: FastAPI, models: Models) -> None:
    @app.get(HEALTH_PATH)
    async def health(response: Response, workers: int = 0) -> dict[str, Any]:
        """Well; with ``?workers=2`` only if at least that many replicas run."""
        counts = await models.count()
        number = sum(counts.values())
        response.status_code = 200 if number >= workers else 503
        status = "ok" if number >= workers else "waiting for replicas"
        return {"status": status, "workers": number, "models": sorted(counts), "replicas": counts}

    @app.post(ORIGINAL_STATUS_PATH)
    async def get_status() -> dict[str, Any]:
        """What the original's clients ask; its queue is what this front has under way."""
        counts = await models.count()
        speed = sum(counts.values()) or 1
        return {"model_names": sorted(counts), "speed": speed, "queue_length": models.num_open}

    @app.get(METRICS_PATH)
    async def metrics() -> None:
        raise ApiError(
            "The figures of all replicas are with those of Ray, at the metrics port of each "
            "machine. Have Prometheus ask there; names begin with ray_mllm_npu_.",
            status=404,
        )


def _add_refusals(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def refuse_request(request: Request, error: ApiError) -> Response:
        return refuse(request.url.path, error)

    @app.exception_handler(HTTPException)
    async def refuse_path(request: Request, error: HTTPException) -> Response:
        return refuse(request.url.path, ApiError(str(error.detail), status=error.status_code))

    @app.exception_handler(RequestValidationError)
    async def refuse_form(request: Request, error: RequestValidationError) -> Response:
        message, param = describe_invalid(error.errors())
        return refuse(request.url.path, ApiError(message, param=param))
