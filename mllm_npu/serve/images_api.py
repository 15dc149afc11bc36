"""OpenAI's pictures: made from a prompt, or a picture changed as a prompt says."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request
from PIL import Image
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.responses import Response

from mllm_npu.inference.events import ImageMade
from mllm_npu.processing.conversation import ask
from mllm_npu.serve.api_description import describe, describe_body
from mllm_npu.serve.api_errors import ApiError, describe_invalid, to_json
from mllm_npu.serve.chat_reply import Choice, Usage
from mllm_npu.serve.chat_request import check_num_pictures, make_options
from mllm_npu.serve.connection import while_connected
from mllm_npu.serve.merging import open_replies
from mllm_npu.serve.openai_models import PictureRequest
from mllm_npu.serve.pictures_out import to_base64
from mllm_npu.serve.protocol import EDIT_IMAGES_PATH, GENERATE_IMAGES_PATH
from mllm_npu.serve.service import Service, service_of

router = APIRouter(tags=["OpenAI"])

PICTURE_FIELDS = ("image", "image[]")
_MAX_FIELDS = 64


@router.post(GENERATE_IMAGES_PATH, **describe(GENERATE_IMAGES_PATH))
async def generate_images(request: Request, body: PictureRequest) -> Response:
    """Draw pictures; their size is the model's own, and scaled where another is asked for."""
    return await _draw(request, body, pictures=())


@router.post(
    EDIT_IMAGES_PATH,
    **describe(EDIT_IMAGES_PATH),
    openapi_extra=describe_body(EDIT_IMAGES_PATH),
)
async def edit_images(request: Request) -> Response:
    """Draw with pictures in view: as ``image``, or several as ``image[]``."""
    service = service_of(request)
    limits = service.limits
    async with request.form(
        max_files=limits.max_images + 1, max_fields=_MAX_FIELDS, max_part_size=4 * limits.max_text
    ) as form:
        texts: dict[str, Any] = {}
        files: list[bytes] = []
        for name, value in form.multi_items():
            if not isinstance(value, UploadFile):
                texts[name] = value
            elif name in PICTURE_FIELDS:
                files.append(await value.read())
            else:
                raise ApiError(f"There is no file {name!r} in this request.", param=name[:64])
    if texts.get("stream") == "false":
        del texts["stream"]
    try:
        body = PictureRequest.model_validate(texts)
    except ValidationError as error:
        message, param = describe_invalid(error.errors(include_url=False, include_input=False))
        raise ApiError(message, param=param) from error
    if not files:
        raise ApiError("No picture was sent. Attach one as a file named image.", param="image")
    check_num_pictures(len(files), limits)
    pictures = await to_thread.run_sync(lambda: [service.reader.from_bytes(data) for data in files])
    return await _draw(request, body, pictures=pictures)


async def _draw(
    request: Request, body: PictureRequest, *, pictures: Sequence[Image.Image]
) -> Response:
    service = service_of(request)
    service.check_model(body.model)
    service.reception.refuse_when_draining()
    if len(body.prompt) > service.limits.max_text:
        raise ApiError(
            f"The prompt has more than {service.limits.max_text} characters.", param="prompt"
        )
    width, height = body.edges() or (1, 1)
    if width * height > service.limits.max_pixels:
        raise ApiError(
            f"size={body.size} was asked for, at most {service.limits.max_pixels} pixels are made.",
            param="size",
        )
    return await while_connected(
        request, _make(service, body, pictures), seconds=service.limits.request_seconds
    )


async def _make(
    service: Service, body: PictureRequest, pictures: Sequence[Image.Image]
) -> Response:
    asked = {
        "images": "force",
        "max_new_tokens": 1,
        "seed": body.seed,
        "image_steps": body.image_steps,
        "guidance": body.guidance,
        "image_guidance": body.image_guidance,
    }
    options = make_options(
        asked, num_choices=body.n or 1, defaults=service.defaults, limits=service.limits
    )
    conversation = ask(body.prompt, pictures)
    usage = Usage()
    choices = [Choice(index=index, usage=usage) for index in range(len(options))]
    drawn: dict[int, Image.Image] = {}
    asked_each = [(conversation, single) for single in options]
    async with open_replies(service.reception, asked_each) as replies:
        async for index, event in replies.events():
            if isinstance(event, ImageMade):
                drawn[index] = event.picture
            else:
                await choices[index].take(event)
    made = [drawn[index] for index in sorted(drawn)]
    data = await to_thread.run_sync(lambda: [_picture(picture, body) for picture in made])
    width, height = body.edges() or made[0].size
    reply = {
        "created": int(time.time()),
        "data": data,
        "output_format": body.output_format or "png",
        "size": f"{width}x{height}",
        "usage": {
            "input_tokens": usage.prompt_tokens,
            "output_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        },
    }
    return Response(to_json(reply), media_type="application/json")


def _picture(picture: Image.Image, body: PictureRequest) -> dict[str, str]:
    edges = body.edges()
    if edges is not None and edges != picture.size:
        picture = picture.resize(edges, Image.Resampling.LANCZOS)
    form = body.output_format or "png"
    packed = to_base64(picture, form)
    if body.response_format == "url":
        return {"url": f"data:image/{form};base64,{packed}"}
    return {"b64_json": packed}
