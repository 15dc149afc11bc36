"""What the endpoints of a worker share: its model, its limits, where requests come in."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from mllm_npu.inference.options import GenerationOptions
from mllm_npu.serve.api_errors import ApiError
from mllm_npu.serve.limits import Limits
from mllm_npu.serve.metrics import Metrics
from mllm_npu.serve.pictures_in import PictureReader
from mllm_npu.serve.protocol import ModelCard
from mllm_npu.serve.reception import Reception


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A model that is ready to be asked over HTTP.

    Args:
        card: the model.
        defaults: of its replies, where a request says nothing.
        limits: of a request.
        reader: opens the pictures of requests.
        reception: where requests come in.
        metrics: what is counted.
        began: Unix time at which the model was loaded.
    """

    card: ModelCard
    defaults: GenerationOptions
    limits: Limits
    reader: PictureReader
    reception: Reception
    metrics: Metrics
    began: int

    def check_model(self, name: str | None) -> None:
        """Refuse a request for a model that is not here; one that names none means this one.

        Raises:
            ApiError: it names another.
        """
        if name not in (None, "", self.card.id):
            raise ApiError(
                f"The model {name!r} was asked for, this server has {self.card.id!r}. "
                "GET /v1/models lists what there is.",
                status=404,
                param="model",
                code="model_not_found",
            )


def service_of(request: Request) -> Service:
    """The service that an app was built with."""
    service: Service = request.app.state.service
    return service
