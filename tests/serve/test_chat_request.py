"""From OpenAI's form to conversation and options."""

import base64
import io

import pytest
from PIL import Image

from mllm_npu.errors import RequestError
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import DrawnImage, ReadImage
from mllm_npu.serve.api_errors import ApiError
from mllm_npu.serve.chat_request import make_options, read_conversation, read_options
from mllm_npu.serve.limits import Limits
from mllm_npu.serve.openai_models import ChatRequest
from mllm_npu.serve.pictures_in import PictureReader

READER = PictureReader(max_pixels=100)
DEFAULTS = GenerationOptions(max_new_tokens=16, guidance=3.0)


def data_url(size=(2, 2)):
    stream = io.BytesIO()
    Image.new("RGB", size).save(stream, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def request(messages=({"role": "user", "content": "hi"},), **changes):
    return ChatRequest.model_validate({"model": "m", "messages": list(messages), **changes})


def image(url=None):
    return {"type": "image_url", "image_url": {"url": url or data_url()}}


def converse(*messages, limits=None):
    return read_conversation(request(messages).messages, reader=READER, limits=limits or Limits())


def test_roles_and_order():
    conversation = converse(
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, image(), image()]},
        {"role": "assistant", "content": [{"type": "text", "text": "b"}, image()]},
        {"role": "assistant", "content": None, "images": [image()]},
    )
    assert [turn.role for turn in conversation.turns] == [
        "system",
        "user",
        "assistant",
        "assistant",
    ]
    kinds = [[type(part).__name__ for part in turn.parts] for turn in conversation.turns]
    assert kinds[1] == ["Text", "ReadImage", "ReadImage"]
    assert kinds[2] == ["Text", "DrawnImage"]
    assert isinstance(conversation.turns[1].parts[1], ReadImage)
    assert isinstance(conversation.turns[3].parts[0], DrawnImage)


def test_an_empty_text_is_no_part():
    assert converse({"role": "user", "content": ""}).turns[0].parts == ()


def test_limits():
    with pytest.raises(ApiError, match="3 pictures"):
        converse(
            {"role": "user", "content": [image(), image()]},
            {"role": "assistant", "images": [image()]},
            limits=Limits(max_images=2),
        )
    with pytest.raises(ApiError, match="more than 5 characters"):
        converse(
            {"role": "user", "content": "abc"},
            {"role": "user", "content": [{"type": "text", "text": "def"}]},
            limits=Limits(max_text=5),
        )
    with pytest.raises(ApiError, match="at most 100 pixels"):
        converse({"role": "user", "content": [image(data_url((11, 10)))]})


def options(**changes):
    return read_options(request(**changes), defaults=DEFAULTS, limits=Limits())


def test_what_is_not_said_is_the_models_own():
    (made,) = options()
    assert made == GenerationOptions(max_new_tokens=16, guidance=3.0, seed=None)


@pytest.mark.parametrize(
    ("asked", "name", "value"),
    [
        ({"max_tokens": 3}, "max_new_tokens", 3),
        ({"max_completion_tokens": 3}, "max_new_tokens", 3),
        ({"temperature": 0}, "temperature", 0),
        ({"stop": "x"}, "stop", ("x",)),
        ({"stop": []}, "stop", ()),
        ({"logprobs": True}, "logprobs", 0),
        ({"logprobs": True, "top_logprobs": 5}, "logprobs", 5),
        ({"logprobs": False}, "logprobs", None),
        ({"modalities": ["text"]}, "images", "forbid"),
        ({"modalities": ["text", "image"]}, "images", "auto"),
        ({"images": "force", "modalities": ["text"]}, "images", "force"),
        ({"seed": 0}, "seed", 0),
    ],
)
def test_options(asked, name, value):
    assert getattr(options(**asked)[0], name) == value


def test_choices_without_a_seed_are_all_fresh():
    assert [single.seed for single in options(n=3)] == [None] * 3


def test_what_is_above_a_limit():
    for asked in ({"max_tokens": 4097}, {"n": 9}, {"image_steps": 201}):
        with pytest.raises(ApiError, match="at most") as caught:
            options(**asked)
        assert caught.value.param == next(iter(asked))
    with pytest.raises(RequestError, match="top_p"):
        make_options({"top_p": 2}, num_choices=1, defaults=DEFAULTS, limits=Limits())
