"""Turn a request in OpenAI's form into the conversation and the options the engine takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from PIL import Image

from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import (
    Conversation,
    DrawnImage,
    Part,
    ReadImage,
    Role,
    Text,
    Turn,
)
from mllm_npu.serve.api_errors import ApiError
from mllm_npu.serve.limits import Limits
from mllm_npu.serve.openai_models import (
    AssistantMessage,
    ChatMessage,
    ChatRequest,
    Content,
    ImagePart,
    TextPart,
)
from mllm_npu.serve.pictures_in import PictureReader

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}


def read_conversation(
    messages: Sequence[ChatMessage], *, reader: PictureReader, limits: Limits
) -> Conversation:
    """The conversation a request holds; its pictures are decoded, which takes a while.

    Raises:
        ApiError: it has too many pictures or too much text, or a picture cannot be read.
    """
    texts = [part for message in messages for part in _texts(message)]
    if sum(map(len, texts)) > limits.max_text:
        raise ApiError(
            f"The texts have more than {limits.max_text} characters. Shorten them.",
            param="messages",
        )
    check_num_pictures(sum(len(_pictures(message)) for message in messages), limits)
    return Conversation(turns=tuple(_turn(message, reader) for message in messages))


def check_num_pictures(num_pictures: int, limits: Limits) -> None:
    """Refuse more pictures than a request may hold, before one is decoded.

    Raises:
        ApiError: there are more.
    """
    if num_pictures > limits.max_images:
        raise ApiError(
            f"{num_pictures} pictures were given, at most {limits.max_images} are read. Give fewer."
        )


def read_options(
    request: ChatRequest, *, defaults: GenerationOptions, limits: Limits
) -> list[GenerationOptions]:
    """Options of each choice; they differ in their seed alone.

    Raises:
        ApiError: a value is above a limit, or given twice.
    """
    if request.max_tokens and request.max_completion_tokens:
        raise ApiError(
            "max_tokens and max_completion_tokens mean the same. Give one of them.",
            param="max_tokens",
        )
    asked = {
        "max_new_tokens": request.max_completion_tokens or request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "min_p": request.min_p,
        "repetition_penalty": request.repetition_penalty,
        "images": request.images or _images_of(request.modalities),
        "image_steps": request.image_steps,
        "guidance": request.guidance,
        "image_guidance": request.image_guidance,
        "seed": request.seed,
        "stop": request.stops() or None,
        "logprobs": (request.top_logprobs or 0) if request.logprobs else None,
    }
    return make_options(asked, num_choices=request.n or 1, defaults=defaults, limits=limits)


def make_options(
    asked: dict[str, Any], *, num_choices: int, defaults: GenerationOptions, limits: Limits
) -> list[GenerationOptions]:
    """Options of each choice; what is None is left at its default, but for the seed.

    Without a seed each reply is made from a fresh one; with it the choices take it and those after.

    Args:
        asked: by the names of the options.
        num_choices: how many replies are wanted.
        defaults: of the model.
        limits: of the worker.

    Raises:
        ApiError: a value is above a limit.
        RequestError: a value is outside its range.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    _check_most("n", num_choices, limits.max_choices)
    _check_most("max_tokens", given.get("max_new_tokens", 1), limits.max_new_tokens)
    _check_most("image_steps", given.get("image_steps", 1), limits.max_image_steps)
    first = dataclasses.replace(defaults, **{"seed": None, **given})
    if num_choices == 1 or first.seed is None:
        return [first] * num_choices
    seeds = range(first.seed, first.seed + num_choices)
    return [dataclasses.replace(first, seed=seed) for seed in seeds]


def _check_most(name: str, value: int, most: int) -> None:
    if value > most:
        raise ApiError(f"{name}={value} was asked for, at most {most} is allowed.", param=name)


def _images_of(modalities: Sequence[str] | None) -> Literal["forbid"] | None:
    """Text alone was asked for; a picture among other things is what the model decides."""
    return "forbid" if modalities is not None and "image" not in modalities else None


def _turn(message: ChatMessage, reader: PictureReader) -> Turn:
    role = ROLES[message.role]
    parts = tuple(_parts(message.content, role, reader))
    if isinstance(message, AssistantMessage):
        drawn = (_picture(part, reader) for part in message.images or ())
        parts = (*parts, *(DrawnImage(picture=picture) for picture in drawn))
    return Turn(role=role, parts=parts)


def _parts(content: Content | None, role: Role, reader: PictureReader) -> Iterator[Part]:
    pieces = [TextPart(type="text", text=content)] if isinstance(content, str) else content or []
    for piece in pieces:
        if isinstance(piece, TextPart):
            if piece.text:
                yield Text(text=piece.text)
        elif role == "assistant":
            yield DrawnImage(picture=_picture(piece, reader))
        else:
            yield ReadImage(picture=_picture(piece, reader))


def _picture(part: ImagePart, reader: PictureReader) -> Image.Image:
    return reader.from_url(part.image_url.url)


def _texts(message: ChatMessage) -> list[str]:
    content = message.content or ""
    if isinstance(content, str):
        return [content]
    return [part.text for part in content if isinstance(part, TextPart)]


def _pictures(message: ChatMessage) -> list[ImagePart]:
    content = message.content
    parts = content if isinstance(content, list) else []
    drawn = message.images if isinstance(message, AssistantMessage) else None
    return [*(part for part in parts if isinstance(part, ImagePart)), *(drawn or [])]
