"""OpenAI's chat completions and list of models, answered by the model of this worker."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request
from starlette.responses import Response

from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import Conversation
from mllm_npu.serve.api_description import describe
from mllm_npu.serve.api_errors import to_json
from mllm_npu.serve.chat_reply import ChatHead, Choice, Usage, stream_pieces
from mllm_npu.serve.chat_request import read_conversation, read_options
from mllm_npu.serve.connection import while_connected
from mllm_npu.serve.event_stream import EventStream, NumberedEvents, begin, server_sent
from mllm_npu.serve.merging import Replies, open_replies
from mllm_npu.serve.openai_models import ChatRequest
from mllm_npu.serve.openai_replies import Model, ModelList
from mllm_npu.serve.protocol import CHAT_PATH, EVENT_STREAM, MODELS_PATH
from mllm_npu.serve.service import Service, service_of

router = APIRouter(tags=["OpenAI"])

Asked = list[tuple[Conversation, GenerationOptions]]


@router.get(MODELS_PATH)
async def list_models(request: Request) -> ModelList:
    """The models of this server."""
    return ModelList(data=[_model(service_of(request))])


@router.get(MODELS_PATH + "/{model:path}")
async def retrieve_model(request: Request, model: str) -> Model:
    """One model."""
    service = service_of(request)
    service.check_model(model)
    return _model(service)


@router.post(CHAT_PATH, **describe(CHAT_PATH))
async def create_chat_completion(request: Request, body: ChatRequest) -> Response:
    """Answer a conversation of text and pictures with text and pictures."""
    service = service_of(request)
    service.check_model(body.model)
    service.reception.refuse_when_draining()
    options = read_options(body, defaults=service.defaults, limits=service.limits)
    conversation = await to_thread.run_sync(
        lambda: read_conversation(body.messages, reader=service.reader, limits=service.limits)
    )
    asked = [(conversation, single) for single in options]
    if body.stream:
        return await _stream(request, service, asked, body)
    return await while_connected(
        request, _complete(service, asked, body.model), seconds=service.limits.request_seconds
    )


async def _complete(service: Service, asked: Asked, model: str) -> Response:
    usage = Usage()
    choices = [Choice(index=index, usage=usage) for index in range(len(asked))]
    async with open_replies(service.reception, asked) as replies:
        async for index, event in replies.events():
            await choices[index].take(event)
    head = ChatHead(model)
    return Response(to_json(head.completion(choices, usage)), media_type="application/json")


async def _stream(request: Request, service: Service, asked: Asked, body: ChatRequest) -> Response:
    async with AsyncExitStack() as stack:
        replies = await stack.enter_async_context(open_replies(service.reception, asked))
        patience = service.limits.patience_seconds
        events, begun = await begin(request, replies, patience=patience)
        lines = server_sent(
            _pieces(body, replies, events),
            replies=replies,
            begun=begun,
            seconds=service.limits.request_seconds,
            metrics=service.metrics,
        )
        return EventStream(lines, closing=stack.pop_all(), media_type=EVENT_STREAM)


async def _pieces(body: ChatRequest, replies: Replies, events: NumberedEvents) -> Any:
    head, usage = ChatHead(body.model), Usage()
    choices = [Choice(index=index, usage=usage) for index in range(len(replies.replies))]
    async for piece in stream_pieces(head, events, choices=choices):
        yield piece
    if body.stream_options is not None and body.stream_options.include_usage:
        yield head.usage_piece(usage)


def _model(service: Service) -> Model:
    return Model(created=service.began, **service.card.model_dump())
