"""The original's JSON API: chunks of JSON that a NUL ends."""

import base64
import io
import json

import httpx
import pytest
from PIL import Image

from mllm_npu.errors import RequestError
from mllm_npu.inference.events import TextDelta
from mllm_npu.processing.conversation import ReadImage, Text
from mllm_npu.serve.legacy_api import chunk


def chunks(reply):
    *parts, rest = reply.content.split(b"\0")
    assert rest == b""
    return [json.loads(part) for part in parts]


def ask(worker, path="/worker_generate", **body):
    return httpx.post(worker.url + path, json=body, timeout=30)


def packed_picture():
    stream = io.BytesIO()
    Image.new("RGB", (5, 3), "blue").save(stream, format="PNG")
    return base64.b64encode(stream.getvalue()).decode()


@pytest.mark.parametrize("path", ["/worker_generate", "/generate"])
def test_a_question_about_a_picture(plain_worker, path):
    body = {"input_text": "What is it?", "image": packed_picture(), "image_gen": False}
    reply = ask(plain_worker, path, **body)
    assert reply.status_code == 200
    assert chunks(reply) == [
        {"text": "Hello", "error_code": 0},
        {"text": "Hello world", "error_code": 0},
    ]
    conversation, options = plain_worker.answerer.asked[-1]
    picture, text = conversation.turns[0].parts
    assert isinstance(picture, ReadImage)
    assert text == Text(text="What is it?")
    assert options.images == "forbid"


def test_a_picture_is_drawn(plain_worker):
    reply = ask(plain_worker, input_text="a seven", image="", image_gen=True, seed=4)
    (only,) = chunks(reply)
    assert (only["text"], only["error_code"]) == ("generate successed.", 0)
    picture = Image.open(io.BytesIO(base64.b64decode(only["image"])))
    assert picture.getpixel((0, 0)) == (4, 0, 0)


def test_options_and_what_else_clients_send(plain_worker):
    ask(plain_worker, input_text="x", max_new_tokens=3, temperature=0.5, speed=1, model="play")
    options = plain_worker.answerer.asked[-1][1]
    assert (options.max_new_tokens, options.temperature) == (3, 0.5)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 400, "input_text"),
        ({"input_text": 3}, 400, "string"),
        ({"input_text": "x", "image": "*"}, 400, "no base64"),
        ({"input_text": "x", "image": "AAAA"}, 400, "cannot be decoded"),
        ({"input_text": "x", "model": "other"}, 404, "has 'play'"),
    ],
)
def test_a_refusal_is_a_chunk_with_its_status(plain_worker, body, status, words):
    reply = ask(plain_worker, **body)
    assert reply.status_code == status
    (only,) = chunks(reply)
    assert only["error_code"] == 1
    assert words in only["text"]
    assert only["error"]["message"] == only["text"]


def test_a_body_that_is_no_json_is_refused(plain_worker):
    reply = httpx.post(f"{plain_worker.url}/worker_generate", content=b"{")
    assert (reply.status_code, chunks(reply)[0]["error_code"]) == (400, 1)


def test_what_fails_later_is_the_last_chunk(scripted):
    def write(conversation, options):
        return [TextDelta(text="a"), 0.2, RequestError("No room.")]

    with scripted.running(write) as worker:
        said = chunks(ask(worker, input_text="x"))
        assert said == [{"text": "a", "error_code": 0}, {"text": "No room.", "error_code": 1}]


def test_a_reply_of_nothing_is_one_chunk(scripted):
    with scripted.running(lambda *_: [scripted.finished()]) as worker:
        assert chunks(ask(worker, input_text="x")) == [{"text": "", "error_code": 0}]


def test_status(plain_worker):
    reply = httpx.post(f"{plain_worker.url}/worker_get_status").json()
    assert reply == {"model_names": ["play"], "speed": 1, "queue_length": 3}


def test_a_chunk_holds_any_text():
    assert chunk("é\0\ud800", error_code=2) == (
        b'{"text":"\\u00e9\\u0000\\ud800","error_code":2}\0'
    )
