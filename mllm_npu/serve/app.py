"""The HTTP application of one worker, put together of its parts."""

from __future__ import annotations

import time

from fastapi import FastAPI

from mllm_npu import __version__
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.serve import api_page, health_api, images_api, legacy_api, openai_api
from mllm_npu.serve.accounting import Accounting
from mllm_npu.serve.answerer import Answerer
from mllm_npu.serve.api_description import DescribedApp
from mllm_npu.serve.limits import Limits
from mllm_npu.serve.metrics import Metrics
from mllm_npu.serve.pictures_in import Fetch, PictureReader, refuse_addresses
from mllm_npu.serve.protocol import ModelCard
from mllm_npu.serve.reception import Reception
from mllm_npu.serve.refusals import add_refusals
from mllm_npu.serve.security import ApiKeys, BodyLimit, KeyGuard
from mllm_npu.serve.service import Service

TITLE = "mllm-npu worker"


def make_service(
    *,
    answerer: Answerer,
    card: ModelCard,
    defaults: GenerationOptions,
    limits: Limits,
    fetch: Fetch = refuse_addresses,
) -> Service:
    """What the endpoints share.

    Args:
        answerer: makes the replies.
        card: the model.
        defaults: of its replies.
        limits: of a request.
        fetch: gets pictures that are named by their address.
    """
    metrics = Metrics(stats=answerer.stats)
    return Service(
        card=card,
        defaults=defaults,
        limits=limits,
        reader=PictureReader(max_pixels=limits.max_pixels, fetch=fetch),
        reception=Reception(answerer=answerer, metrics=metrics),
        metrics=metrics,
        began=int(time.time()),
    )


def build_app(service: Service, *, keys: ApiKeys | None = None) -> FastAPI:
    """The application.

    Args:
        service: what it answers with.
        keys: one of which every request must hold; none: it is open.
    """
    app = DescribedApp(title=TITLE, version=__version__)
    app.state.service = service
    for api in (openai_api, images_api, legacy_api, health_api, api_page):
        app.include_router(api.router)
    add_refusals(app)
    # The last one added is passed first.
    limits = service.limits
    app.add_middleware(BodyLimit, max_bytes=limits.max_body_bytes, seconds=limits.body_seconds)
    app.add_middleware(KeyGuard, keys=keys or ApiKeys())
    app.add_middleware(Accounting, metrics=service.metrics)
    return app
