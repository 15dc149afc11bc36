"""What is sent is what the description of the API says: no field more, none less."""

import json

import httpx
import pytest

from mllm_npu.inference.events import ImageMade, TextDelta, TokenLogprob
from mllm_npu.processing.grounding import Box
from mllm_npu.serve.openai_replies import (
    ChatCompletion,
    ChatCompletionChunk,
    MadePictures,
    ModelList,
    Refusal,
)

ASK = {"model": "play", "messages": [{"role": "user", "content": "Say hello."}]}


@pytest.fixture(scope="module")
def worker(scripted):
    """One whose replies hold all that a reply can hold."""
    unlikely = TokenLogprob(token_id=2, text="no", logprob=float("-inf"))
    likely = TokenLogprob(token_id=1, text="yes", logprob=-0.5, top=(unlikely,))
    box = Box(x0=0.1, y0=0.2, x1=0.3, y1=0.4, label="dog")

    def write(conversation, options):
        picture = scripted.Image.new("RGB", (6, 4))
        return [
            TextDelta(text="yes", logprobs=(likely,)),
            ImageMade(picture=picture, features=None),
            scripted.finished(boxes=(box,)),
        ]

    with scripted.running(write) as worker:
        yield worker


def fits(model, text):
    """Whether a text is exactly what a model describes."""
    read = model.model_validate_json(text, strict=True)
    return json.loads(read.model_dump_json(exclude_unset=True)) == json.loads(text)


def test_a_whole_reply(worker):
    asked = {**ASK, "logprobs": True, "top_logprobs": 1, "n": 2}
    reply = httpx.post(f"{worker.url}/v1/chat/completions", json=asked, timeout=30)
    assert fits(ChatCompletion, reply.text)
    message = reply.json()["choices"][1]["message"]
    assert message["images"]
    assert message["boxes"]


def test_a_stream(worker):
    asked = {**ASK, "logprobs": True, "top_logprobs": 1, "stream": True}
    asked["stream_options"] = {"include_usage": True}
    reply = httpx.post(f"{worker.url}/v1/chat/completions", json=asked, timeout=30)
    pieces = [line[6:] for line in reply.text.splitlines() if line.startswith("data: {")]
    assert len(pieces) == 5
    for piece in pieces:
        assert fits(ChatCompletionChunk, piece), piece


@pytest.mark.parametrize("form", ["b64_json", "url"])
def test_pictures(worker, form):
    asked = {"prompt": "a seven", "response_format": form, "n": 2}
    reply = httpx.post(f"{worker.url}/v1/images/generations", json=asked, timeout=30)
    assert fits(MadePictures, reply.text)


def test_models(worker):
    assert fits(ModelList, httpx.get(f"{worker.url}/v1/models").text)


@pytest.mark.parametrize(
    "asked", [{}, {**ASK, "model": "other"}, {**ASK, "n": 99}, {**ASK, "temprature": 1}]
)
def test_refusals(worker, asked):
    reply = httpx.post(f"{worker.url}/v1/chat/completions", json=asked, timeout=30)
    assert reply.status_code in (400, 404)
    assert fits(Refusal, reply.text)


def test_a_field_that_nobody_told_of_would_be_seen():
    told = {"error": {"message": "m", "type": "t", "param": None, "code": None}}
    assert fits(Refusal, json.dumps(told))
    assert not fits(Refusal, json.dumps({**told, "more": 1}))
