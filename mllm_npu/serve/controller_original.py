"""The controller's endpoints as TencentARC/mllm-npu has them, for its workers and its clients."""

from __future__ import annotations

import httpx
from fastapi import APIRouter, Depends
from pydantic import BaseModel

from mllm_npu.serve.controller_token import TokenCheck
from mllm_npu.serve.dispatch import Pick
from mllm_npu.serve.original_models import OriginalStatus
from mllm_npu.serve.protocol import (
    HEALTH_PATH,
    ORIGINAL_STATUS_PATH,
    Count,
    ModelCard,
    Name,
    Url,
    bearer,
)
from mllm_npu.serve.registry import Registry

PROBE_SECONDS = 5.0


class OriginalRegistration(BaseModel):
    """How it registers; the controller fetches nothing, so the status belongs to it."""

    worker_name: Url
    check_heart_beat: bool = True
    worker_status: OriginalStatus


class OriginalHeartbeat(BaseModel):
    """How it says that it is alive."""

    worker_name: Url
    queue_length: Count


class AskedModel(BaseModel):
    """Which model a client wants the address of."""

    model: Name


def original_routes(
    *, registry: Registry, pick: Pick, client: httpx.AsyncClient, check_token: TokenCheck
) -> APIRouter:
    """The original's endpoints, apart from the one that passes requests on.

    Args:
        registry: the workers.
        pick: chooses among them.
        client: reaches them.
        check_token: refuses whoever is no worker.
    """
    routes = APIRouter(tags=["original"])
    for_workers = [Depends(check_token)]

    @routes.post("/register_worker", dependencies=for_workers)
    async def register_worker(said: OriginalRegistration) -> None:
        """A worker of the original says what it answers with."""
        cards = [ModelCard(id=name) for name in said.worker_status.model_names]
        speed, beats = said.worker_status.speed, said.check_heart_beat
        worker = registry.register(said.worker_name, cards, speed=speed, beats=beats)
        worker.load = said.worker_status.queue_length

    @routes.post("/receive_heart_beat", dependencies=for_workers)
    async def receive_heart_beat(said: OriginalHeartbeat) -> dict[str, bool]:
        """It is alive; ``exist`` is false where it has to register again."""
        return {"exist": registry.hear(said.worker_name, load=said.queue_length)}

    @routes.post("/refresh_all_workers", dependencies=for_workers)
    async def refresh_all_workers() -> None:
        """Ask every worker whether it is there."""
        for worker in registry:
            try:
                await client.get(
                    worker.url + HEALTH_PATH,
                    headers=bearer(check_token.token),
                    timeout=PROBE_SECONDS,
                )
            except httpx.HTTPError:
                registry.miss(worker)

    @routes.post("/list_models")
    async def list_models() -> dict[str, list[str]]:
        """Names of the models behind this address."""
        return {"models": sorted(registry.offered())}

    @routes.post("/get_worker_address")
    async def get_worker_address(said: AskedModel) -> dict[str, str]:
        """The address of a worker that has a model; empty where none has."""
        workers = registry.find(said.model)
        return {"address": pick(workers).url if workers else ""}

    @routes.post(ORIGINAL_STATUS_PATH)
    async def worker_get_status() -> OriginalStatus:
        """What the workers answer with together, and how many requests they have."""
        workers = list(registry)
        return OriginalStatus(
            model_names=sorted(registry.offered()),
            speed=sum(worker.speed for worker in workers) or 1.0,
            queue_length=sum(max(worker.load, worker.in_flight) for worker in workers),
        )

    return routes
