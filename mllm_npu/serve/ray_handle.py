"""Ask a model's deployment through its handle; what goes wrong in Ray is told in our errors."""

from __future__ import annotations

import asyncio
from typing import Any

from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from mllm_npu.errors import BusyError, ServingError
from mllm_npu.serve.protocol import ModelCard
from mllm_npu.serve.ray_forwarding import Messages

CARD_SECONDS = 2.0


class ModelHandle:
    """One model, whichever of its replicas answers.

    Args:
        handle: of its deployment.
    """

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle: Any = handle
        self._streaming: Any = handle.options(stream=True)

    async def ask(self, **request: Any) -> Messages:
        """The messages of a reply; ending the iteration early calls the request off.

        Args:
            request: as ``ModelReplica.answer`` takes it.

        Raises:
            BusyError: too many requests wait.
            ServingError: the replica has died, or there is none and will be none.
        """
        batches = self._streaming.answer.remote(**request)
        try:
            async for batch in batches:
                yield batch
        except BackPressureError as error:
            raise BusyError("Too many requests wait for this model. Ask again later.") from error
        except (RayError, RayServeException) as error:
            raise ServingError(f"The replica does not answer: {_first_line(error)}") from error
        finally:
            batches.cancel()

    async def card(self) -> ModelCard | None:
        """What the model is; None while no replica has time to say so."""
        asked = self._handle.card.remote()
        try:
            async with asyncio.timeout(CARD_SECONDS):
                return ModelCard.model_validate(await asked)
        except (TimeoutError, RayError, RayServeException):
            asked.cancel()
            return None


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
