"""Describe what worker and controller both answer: bodies, replies, streams, refusals.

A worker checks bodies with pydantic, a controller passes them on unread. Their pages are to say the
same, so what an endpoint takes and gives is said here, once for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.responses import Response

from mllm_npu.serve.openai_models import ChatRequest, PictureRequest
from mllm_npu.serve.openai_replies import (
    ChatCompletion,
    ChatCompletionChunk,
    MadePictures,
    Refusal,
)
from mllm_npu.serve.original_models import OriginalChunk, OriginalRequest
from mllm_npu.serve.protocol import (
    CHAT_PATH,
    CHUNKS,
    EDIT_IMAGES_PATH,
    EVENT_STREAM,
    GENERATE_IMAGES_PATH,
    ORIGINAL_GENERATE_PATH,
)

JSON, FORM, TEXT = "application/json", "multipart/form-data", "text/plain"
_PLACE = "#/components/schemas/{model}"
BODIES: Mapping[str, type[BaseModel]] = {
    CHAT_PATH: ChatRequest,
    GENERATE_IMAGES_PATH: PictureRequest,
    ORIGINAL_GENERATE_PATH: OriginalRequest,
}
SUMMARIES = {
    CHAT_PATH: "Chat completions in OpenAI's form",
    GENERATE_IMAGES_PATH: "Draw pictures, in OpenAI's form",
    EDIT_IMAGES_PATH: "Change pictures, in OpenAI's form",
    ORIGINAL_GENERATE_PATH: "The original's form: chunks of JSON, each ended by a 0 byte",
}
DESCRIPTIONS = {
    CHAT_PATH: "Answer a conversation of text and pictures with text and pictures.\n\n"
    "Drawn pictures are in `message.images` (`delta.images` of a stream): content parts with a "
    "data URL, and how many characters of the text stand before each (`offset`). They may be sent "
    "back with their message. `message.boxes` are the places in the last picture that the reply "
    "names, as shares of its width and height.",
    GENERATE_IMAGES_PATH: "Draw pictures; their size is the model's own, and scaled where another "
    "is asked for.",
    EDIT_IMAGES_PATH: "Draw with pictures in view: as `image`, or several as `image[]`.",
    ORIGINAL_GENERATE_PATH: "Answer a question in text, or draw a picture; chunks of JSON, each "
    "ended by a NUL.",
}
REFUSALS = {
    400: "The request does not fit its form, or cannot be answered as it was put",
    401: "An API key is needed",
    404: "The model is not here",
    408: "The request did not arrive in time",
    413: "The request is too long",
    429: "Too many requests wait; retry-after says when to come back",
    500: "The server failed",
    502: "The worker failed while it made the reply",
    503: "No worker has the model, or it takes nothing new",
    504: "The reply took too long",
}


class DescribedApp(FastAPI):
    """An application whose description holds the schemas its routes refer to by name.

    Its page for people is ``api_page``, and every route may refuse.

    Args:
        title: of the description.
        more: what FastAPI takes.
    """

    def __init__(self, *, title: str, **more: Any) -> None:
        refused: dict[int | str, dict[str, Any]] = {
            "default": _told("A refusal", {JSON: _schema(Refusal)})
        }
        super().__init__(title=title, docs_url=None, redoc_url=None, responses=refused, **more)

    def openapi(self) -> dict[str, Any]:
        """The description, made once."""
        if self.openapi_schema is None:
            described = super().openapi()
            described.setdefault("components", {}).setdefault("schemas", {}).update(_schemas())
        return super().openapi()


def describe(path: str) -> dict[str, Any]:
    """What a route of a forwarded path says about itself, apart from its body.

    Gives arguments of the route's decorator.
    """
    refused = {CHUNKS: _chunks()} if path == ORIGINAL_GENERATE_PATH else {JSON: _schema(Refusal)}
    return {
        "operation_id": path.strip("/").replace("/", "_"),
        "summary": SUMMARIES[path],
        "description": DESCRIPTIONS[path],
        "response_model": None,
        "response_class": Response,
        "responses": {
            200: _told("The reply", _replies(path)),
            **{status: _told(why, refused) for status, why in REFUSALS.items()},
        },
    }


def describe_body(path: str) -> dict[str, Any]:
    """A body that the route itself does not read, as ``openapi_extra``."""
    content = {FORM: _form()} if path == EDIT_IMAGES_PATH else {JSON: _schema(BODIES[path])}
    return {"requestBody": {"required": True, "content": content}}


def describe_text(why: str) -> dict[str, Any]:
    """Arguments of a route whose reply is plain text."""
    reply = _told(why, {TEXT: {"schema": {"type": "string"}}})
    return {"response_model": None, "response_class": Response, "responses": {200: reply}}


def _replies(path: str) -> dict[str, Any]:
    if path == CHAT_PATH:
        return {JSON: _schema(ChatCompletion), EVENT_STREAM: _events()}
    return {CHUNKS: _chunks()} if path == ORIGINAL_GENERATE_PATH else {JSON: _schema(MadePictures)}


def _events() -> dict[str, Any]:
    """Of ``stream``: the data of every event but the last, which is ``[DONE]``."""
    data = {"type": "string", "contentMediaType": JSON, "contentSchema": _ref(ChatCompletionChunk)}
    return {"itemSchema": {"type": "object", "properties": {"data": data}, "required": ["data"]}}


def _chunks() -> dict[str, Any]:
    """Each is followed by a NUL."""
    schema = {"type": "string", "contentMediaType": JSON, "contentSchema": _ref(OriginalChunk)}
    return {"schema": schema}


def _form() -> dict[str, Any]:
    """Pictures, and the fields of a request for pictures; a form has no null."""
    schema = PictureRequest.model_json_schema(ref_template=_PLACE)
    file = {"type": "string", "format": "binary"}
    fields = {
        name: next((each for each in kind.get("anyOf", ()) if each != {"type": "null"}), kind)
        for name, kind in schema["properties"].items()
    }
    files = {"image": file, "image[]": {"type": "array", "items": file}}
    return {
        "schema": {
            "type": "object",
            "properties": files | fields,
            "required": ["image", *schema["required"]],
        }
    }


def _schemas() -> dict[str, Any]:
    """Everything that is referred to by name."""
    replies = (ChatCompletion, ChatCompletionChunk, MadePictures, OriginalChunk, Refusal)
    models: tuple[type[BaseModel], ...] = (*BODIES.values(), *replies)
    _, found = models_json_schema([(model, "validation") for model in models], ref_template=_PLACE)
    schemas: dict[str, Any] = found["$defs"]
    return schemas


def _told(description: str, content: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": dict(content)}


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return {"schema": _ref(model)}


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _PLACE.format(model=model.__name__)}
