"""The model a request is for is found in whatever form it comes, and put into a worker's words."""

import asyncio
import json

import pytest
from starlette.requests import Request

from mllm_npu.serve.api_errors import ApiError
from mllm_npu.serve.controller_request import read_request
from mllm_npu.serve.protocol import ModelCard
from mllm_npu.serve.registry import Registry

JSON = "application/json"
FORM = "multipart/form-data; boundary=x"


@pytest.fixture
def registry():
    registry = Registry()
    registry.register("http://127.0.0.1:1", [ModelCard(id="tiny", version="1")])
    registry.register("http://127.0.0.1:2", [ModelCard(id="tiny", version="2")])
    return registry


def read(registry, body, kind=JSON, **headers):
    named = {"content-type": kind, **headers}
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
    }

    async def receive():
        return {"type": "http.request", "body": body}

    return asyncio.run(read_request(Request(scope, receive), registry))


def form(model, picture=b"\x89PNG\r\n\r\n"):
    return (
        b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na hat\r\n'
        b'--x\r\nContent-Disposition: form-data; name="model"\r\n'
        b"Content-Type: text/plain\r\n\r\n" + model + b"\r\n"
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
        + picture
        + b"\r\n--x--\r\n"
    )


def test_a_plain_request_is_not_touched(registry):
    body = b'{ "model":"tiny",  "n": 1 }'
    asked = read(registry, body)
    assert (asked.model, asked.body, asked.path) == ("tiny", body, "/v1/chat/completions")


def test_a_version_is_put_into_a_workers_words(registry):
    asked = read(registry, b'{"model": "tiny@1", "n": 1}')
    assert asked.model == "tiny@1"
    assert json.loads(asked.body) == {"model": "tiny", "n": 1}


@pytest.mark.parametrize("body", [b"{}", b'{"model": null}', b'{"model": ""}'])
def test_no_model_is_the_default_one(registry, body):
    asked = read(registry, body)
    assert asked.model is None
    assert json.loads(asked.body) == {"model": "tiny"}
    assert read(Registry(), body).body == body


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b"1" * 5000, "not JSON"),
        (b"[]", "but a list"),
        (b"null", "but a NoneType"),
        (b'{"model": 3}', "model is '3'"),
        (b'{"model": {"a": 1}}', "model is"),
        (b'{"model": "' + b"x" * 300 + b'"}', "at most 256"),
    ],
)
def test_what_is_no_request_is_refused(registry, body, message):
    with pytest.raises(ApiError, match=message) as caught:
        read(registry, body)
    assert caught.value.status == 400


def test_a_form_names_its_model_in_a_field(registry):
    asked = read(registry, form(b"tiny"), FORM)
    assert (asked.model, asked.body) == ("tiny", form(b"tiny"))
    asked = read(registry, form(b"tiny@1"), FORM)
    assert (asked.model, asked.body) == ("tiny@1", form(b"tiny"))


def test_a_form_may_name_none(registry):
    body = form(b"tiny").replace(b'"model"', b'"other"')
    asked = read(registry, body, FORM)
    assert (asked.model, asked.body) == (None, body)
    assert read(registry, form(b""), FORM).model is None


def test_a_request_keeps_its_id_or_gets_one(registry):
    assert read(registry, b"{}", **{"x-request-id": "mine.1"}).request_id == "mine.1"
    made = {read(registry, b"{}", **{"x-request-id": bad}).request_id for bad in ("", "a b", "é")}
    assert len(made) == 3
    assert all(len(each) == 32 for each in made)
