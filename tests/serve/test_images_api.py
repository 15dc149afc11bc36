"""OpenAI's pictures, driven by OpenAI's own client."""

import base64
import io

import httpx
import openai
import pytest
from PIL import Image

from mllm_npu.processing.conversation import ReadImage


@pytest.fixture(scope="module")
def client(plain_worker):
    url = f"{plain_worker.url}/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=30) as client:
        yield client


def png(colour="blue"):
    stream = io.BytesIO()
    Image.new("RGB", (5, 3), colour).save(stream, format="PNG")
    return stream.getvalue()


def opened(packed):
    return Image.open(io.BytesIO(base64.b64decode(packed)))


def test_pictures_of_a_prompt(client, plain_worker):
    extra = {"seed": 3, "image_steps": 4, "guidance": 1.0}
    reply = client.images.generate(prompt="a seven", model="play", n=2, extra_body=extra)
    assert [opened(one.b64_json).getpixel((0, 0)) for one in reply.data] == [(3, 0, 0), (4, 0, 0)]
    assert (reply.size, reply.output_format) == ("6x4", "png")
    assert reply.usage.output_tokens == 2
    options = plain_worker.answerer.asked[-1][1]
    assert (options.images, options.image_steps, options.guidance) == ("force", 4, 1.0)
    assert options.max_new_tokens == 1


def test_size_and_form(client):
    reply = client.images.generate(
        prompt="a seven", size="12x8", response_format="url", output_format="jpeg"
    )
    head, _, packed = reply.data[0].url.partition(",")
    assert head == "data:image/jpeg;base64"
    assert (opened(packed).size, opened(packed).format) == ((12, 8), "JPEG")


@pytest.mark.parametrize("num_pictures", [1, 2])
def test_pictures_are_changed(client, plain_worker, num_pictures):
    files = [("a.png", png()), ("b.png", png("green"))][:num_pictures]
    sent = files[0] if num_pictures == 1 else files
    reply = client.images.edit(
        image=sent, prompt="bigger", model="play", n=1, extra_body={"seed": 8}
    )
    assert opened(reply.data[0].b64_json).getpixel((0, 0)) == (8, 0, 0)
    conversation, options = plain_worker.answerer.asked[-1]
    read = [part for part in conversation.turns[0].parts if isinstance(part, ReadImage)]
    assert read[0].picture.getpixel((0, 0)) == (0, 0, 255)
    assert len(read) == num_pictures
    assert options.images == "force"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": "big"}, "pattern"),
        ({"size": "9999x9999"}, "pixels"),
        ({"n": 9}, "at most 8"),
        ({"prompt": ""}, "at least 1"),
        ({"stream": True}, "False"),
        ({"colour": "red"}, "no such parameter"),
    ],
)
def test_what_does_not_fit_is_a_400(plain_worker, changes, words):
    url = f"{plain_worker.url}/v1/images/generations"
    reply = httpx.post(url, json={"prompt": "a seven", **changes})
    assert reply.status_code == 400
    assert words in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("files", "data", "words"),
    [
        ({}, {"prompt": "x"}, "No picture"),
        ({"image": b"no picture"}, {"prompt": "x"}, "cannot be decoded"),
        ({"mask": png(), "image": png()}, {"prompt": "x"}, "'mask'"),
        ({"image": png()}, {}, "prompt"),
        ({"image": png()}, {"prompt": "x", "n": "many"}, "integer"),
    ],
)
def test_an_edit_that_does_not_fit_is_a_400(plain_worker, files, data, words):
    files = files or {"other[]": b""}
    reply = httpx.post(f"{plain_worker.url}/v1/images/edits", files=files, data=data)
    assert reply.status_code == 400
    if "other[]" not in files:
        assert words in reply.json()["error"]["message"]


def test_a_body_that_is_no_form_is_a_400(plain_worker):
    url = f"{plain_worker.url}/v1/images/edits"
    kind = {"content-type": "multipart/form-data; boundary=x"}
    for reply in (
        httpx.post(url, json={"prompt": "x"}),
        httpx.post(url, content=b"--y\r\n", headers=kind),
        httpx.post(url, content=b"--x\r\nno head", headers={"content-type": "multipart/form-data"}),
    ):
        assert reply.status_code == 400
        assert reply.json()["error"]["type"] == "invalid_request_error"
