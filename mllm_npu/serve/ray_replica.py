"""A replica of a model on Ray Serve: the application of a worker, asked through Ray."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.types import Message

from mllm_npu.errors import ServingError
from mllm_npu.serve.app import build_app
from mllm_npu.serve.asgi_call import Headers, call_app, http_scope
from mllm_npu.serve.ray_metrics import MetricsCopy
from mllm_npu.serve.service import Service
from mllm_npu.serve.worker import load_service, parse


class ModelReplica:
    """The deployment of one model; each of its replicas holds an engine.

    Args:
        words: what the model is and how it answers, as on the command line of a worker.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.service = self.load(words)
        self.app = build_app(self.service)
        self.metrics = MetricsCopy(self.service.metrics.registry)

    def load(self, words: Sequence[str]) -> Service:
        """Load the model.

        Raises:
            ConfigError: there is no such model, or it cannot answer.
            WeightsError: its weights do not fit.
        """
        return load_service(parse(words))

    async def answer(
        self, *, method: str, path: str, query: bytes, headers: Headers, body: bytes
    ) -> AsyncIterator[list[Message]]:
        """The messages of the application's reply, as they come."""
        scope = http_scope(method=method, path=path, query=query, headers=headers)
        async for messages in call_app(self.app, scope, body):
            yield messages

    async def card(self) -> dict[str, Any]:
        """What the model is, in plain values."""
        return self.service.card.model_dump()

    def check_health(self) -> None:
        """Called by Ray again and again; a replica that fails three times is replaced.

        Raises:
            ServingError: the engine has failed.
        """
        failure = self.service.reception.answerer.stats().error
        if failure is not None:
            raise ServingError(f"The engine has failed: {failure}. The replica is replaced.")

    def __del__(self) -> None:
        """Called by Ray when the last reply has ended, or the time for that is over."""
        service = getattr(self, "service", None)
        if service is not None:
            self.metrics.stop()
            service.reception.answerer.close(drain=False)
