"""The JSON API of TencentARC/mllm-npu: one question in, chunks of JSON separated by NUL out.

A request is ``{"input_text": ..., "image": base64, "image_gen": bool}``. Without ``image_gen`` the
chunks are ``{"text": the text so far, "error_code": 0}``; with it one chunk has the picture as
base64 in ``image``. A refusal is a chunk too, with ``error_code`` 1 and a status that says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request
from starlette.responses import Response

from mllm_npu.inference.events import Finished, ImageMade, TextDelta
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import Conversation, ask
from mllm_npu.serve.api_description import describe
from mllm_npu.serve.api_errors import ApiError, error_kind, to_json
from mllm_npu.serve.chat_request import make_options
from mllm_npu.serve.event_stream import EventStream, NumberedEvents, begin, timed_out
from mllm_npu.serve.merging import open_replies
from mllm_npu.serve.original_models import OriginalRequest, OriginalStatus
from mllm_npu.serve.pictures_out import to_base64
from mllm_npu.serve.protocol import CHUNKS, ORIGINAL_GENERATE_PATH, ORIGINAL_STATUS_PATH
from mllm_npu.serve.service import Service, service_of

router = APIRouter(tags=["original"])

ALIAS = "/generate"
DRAWN_TEXT = "generate successed."
"""What the original says beside a picture; its clients show it."""

FAILED = 1


def chunk(text: str, *, error_code: int = 0, **more: Any) -> bytes:
    """One chunk of a reply, its separator included."""
    return to_json({"text": text, **more, "error_code": error_code}).encode() + b"\0"


@router.post(ORIGINAL_STATUS_PATH)
async def get_status(request: Request) -> OriginalStatus:
    """What this worker answers with, and how many requests it has."""
    service = service_of(request)
    load = service.reception.answerer.stats()
    names, length = [service.card.id], load.queued + load.running
    return OriginalStatus(model_names=names, speed=1, queue_length=length)


@router.post(ORIGINAL_GENERATE_PATH, **describe(ORIGINAL_GENERATE_PATH))
@router.post(ALIAS, response_model=None, include_in_schema=False)
async def generate(request: Request, body: OriginalRequest) -> Response:
    """Answer a question in text, or draw a picture; chunks of JSON, each ended by a NUL."""
    service = service_of(request)
    service.check_model(body.model)
    service.reception.refuse_when_draining()
    if len(body.input_text) > service.limits.max_text:
        raise ApiError(f"The text has more than {service.limits.max_text} characters.")
    conversation = await to_thread.run_sync(lambda: _conversation(service, body))
    options = _options(service, body)
    async with AsyncExitStack() as stack:
        opened = open_replies(service.reception, [(conversation, options)])
        replies = await stack.enter_async_context(opened)
        events, _ = await begin(request, replies, patience=service.limits.patience_seconds)
        chunks = _chunks(service, events, drawn_text=DRAWN_TEXT if body.image_gen else "")
        return EventStream(chunks, closing=stack.pop_all(), media_type=CHUNKS)


def _conversation(service: Service, body: OriginalRequest) -> Conversation:
    pictures = [service.reader.from_base64(body.image)] if body.image else []
    return ask(body.input_text, pictures)


def _options(service: Service, body: OriginalRequest) -> GenerationOptions:
    asked = {
        "images": "force" if body.image_gen else "forbid",
        "max_new_tokens": 1 if body.image_gen else body.max_new_tokens,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "seed": body.seed,
    }
    (options,) = make_options(
        asked, num_choices=1, defaults=service.defaults, limits=service.limits
    )
    return options


async def _chunks(
    service: Service, events: NumberedEvents, *, drawn_text: str
) -> AsyncIterator[bytes]:
    text, num_chunks = "", 0
    seconds = service.limits.request_seconds
    try:
        async with asyncio.timeout(seconds):
            async for _, event in events:
                match event:
                    case TextDelta():
                        text += event.text
                        yield chunk(text)
                    case ImageMade():
                        packed = await to_thread.run_sync(to_base64, event.picture)
                        yield chunk(text or drawn_text, image=packed)
                    case Finished():  # a reply of nothing is one chunk all the same
                        if not num_chunks:
                            yield chunk(text)
                num_chunks += 1
    except (ApiError, TimeoutError) as error:
        failure = error if isinstance(error, ApiError) else timed_out(seconds)
        service.metrics.errors.labels(error_kind(failure.status)).inc()
        yield chunk(failure.message, error_code=FAILED)
