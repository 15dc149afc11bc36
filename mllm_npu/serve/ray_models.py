"""The models behind the front of a service on Ray: found by name, described, counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from anyio import to_thread

from mllm_npu.serve.api_errors import ApiError
from mllm_npu.serve.protocol import ModelCard
from mllm_npu.serve.ray_forwarding import Messages
from mllm_npu.serve.registry import Registry

STATUS_SECONDS = 1.0
"""How long what Ray says about its replicas is taken for true."""


class Model(Protocol):
    """A model that can be asked."""

    def ask(self, **request: Any) -> Messages:
        """The messages of a reply."""
        ...

    async def card(self) -> ModelCard | None:
        """What it is; None while nobody can say."""
        ...


CountReplicas = Callable[[], Mapping[str, int]]
"""How many replicas of each model run; may wait."""


class Models:
    """The models behind the front, in the order in which they were named.

    Args:
        models: by name; the first one gets requests that name none.
        count_replicas: asks Ray.
    """

    def __init__(self, models: Mapping[str, Model], *, count_replicas: CountReplicas) -> None:
        self._models = dict(models)
        self.num_open = 0
        self._count, self._counts = count_replicas, dict.fromkeys(models, 0)
        self._counted = -STATUS_SECONDS
        self._counting = asyncio.Lock()
        self.registry = Registry()
        for name in models:
            self.registry.register(name, [ModelCard(id=name)], beats=False)

    @property
    def default(self) -> Model:
        """The first one."""
        return next(iter(self._models.values()))

    def find(self, asked: str | None) -> Model:
        """The model that a request is for.

        Raises:
            ApiError: there is none of this name.
        """
        name, version = self.registry.resolve(asked)
        if name is None or version is not None or name not in self._models:
            raise unknown_model(asked, self._models)
        return self._models[name]

    async def cards(self) -> dict[str, ModelCard]:
        """What each model is, as it last said; one that has not said yet has a name only.

        One without replicas is not asked: that would start one.
        """
        there = [name for name, number in (await self.count()).items() if number]
        cards = await asyncio.gather(*(self._models[name].card() for name in there))
        for name, card in zip(there, cards, strict=True):
            if card is not None:
                self.registry.register(name, [card], beats=False)
        return self.registry.offered()

    def count_open(self, change: int) -> None:
        """Keep the number of requests that are under way."""
        self.num_open += change

    async def count(self) -> Mapping[str, int]:
        """How many replicas of each model run."""
        async with self._counting:
            if time.monotonic() - self._counted >= STATUS_SECONDS:
                self._counts = dict(await to_thread.run_sync(self._count))
                self._counted = time.monotonic()
        return {name: self._counts.get(name, 0) for name in self._models}


def unknown_model(asked: str | None, offered: Iterable[str]) -> ApiError:
    """The refusal of a request for a model that is not here."""
    return ApiError(
        f"Model {str(asked)[:100]!r} was asked for, here is {', '.join(offered)}. Name one of "
        "these.",
        status=404,
        param="model",
        code="model_not_found",
    )
