"""Which models there are: asked for again after a while, once for everybody who looks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from mllm_npu.serve.page.client import Controller, Model
from mllm_npu.serve.page.trouble import AskError

FRESH_SECONDS = 4.0
MOST_KEYS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """What the controller said.

    Args:
        models: by name.
        error: why there are none.
        asked: when it was asked.
    """

    models: tuple[Model, ...] = ()
    error: AskError | None = None
    asked: float = 0.0


class Models:
    """The models of a controller.

    Args:
        controller: is asked.
        clock: gives seconds.
    """

    def __init__(
        self, controller: Controller, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._controller, self._clock = controller, clock
        self._listed: dict[str, Listed] = {}
        self._asking = asyncio.Lock()

    async def look(self, *, key: str = "") -> Listed:
        """What there is now, or was a moment ago.

        Args:
            key: of the person; "" takes that of the page.
        """
        async with self._asking:
            listed = self._listed.get(key)
            if listed is not None and self._clock() - listed.asked < FRESH_SECONDS:
                return listed
            try:
                found = await self._controller.models(key=key)
                listed = Listed(models=found, asked=self._clock())
            except AskError as error:
                listed = Listed(error=error, asked=self._clock())
            if len(self._listed) >= MOST_KEYS:
                self._listed.clear()
            self._listed[key] = listed
            return listed

    def draws(self, name: str) -> bool:
        """Whether a model makes pictures; yes where nothing is known."""
        known = (model for listed in self._listed.values() for model in listed.models)
        return all(model.draws for model in known if model.name == name)
