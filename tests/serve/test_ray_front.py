"""The front of a service on Ray, with models that play and no Ray."""

import asyncio
import json

import httpx
import pytest

from mllm_npu.errors import ConfigError
from mllm_npu.serve.limits import Limits
from mllm_npu.serve.protocol import ModelCard
from mllm_npu.serve.security import KEYS_VARIABLE, ApiKeys

front = pytest.importorskip("mllm_npu.serve.ray_front", exc_type=ImportError)
from mllm_npu.serve.ray_models import Models  # noqa: E402

KEY = "a-key-of-the-tests"


class Model:
    """Answers with its name and what it was asked."""

    def __init__(self, name):
        self.name = name

    async def ask(self, *, method, path, query, headers, body):
        said = {"model": self.name, "asked": [method, path, body.decode()]}
        headers = [(b"content-type", b"application/json"), (b"x-request-id", b"7")]
        yield [{"type": "http.response.start", "status": 200, "headers": headers}]
        yield [{"type": "http.response.body", "body": json.dumps(said).encode()}]

    async def card(self):
        return ModelCard(id=self.name, version="3", draws=True, max_tokens=64)


def ask(method, path, *, keys=(), limits=None, **more):
    """The reply of a front with models a and b."""

    async def go():
        models = Models({n: Model(n) for n in "ab"}, count_replicas=lambda: {"a": 2, "b": 1})
        app = front.build_front(models, keys=ApiKeys(keys), limits=limits or Limits())
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here:7") as client:
            return await client.request(method, path, **more)

    return asyncio.run(asyncio.wait_for(go(), 20))


def test_the_model_of_a_request_answers_it():
    said = ask("POST", "/v1/chat/completions", json={"model": "b", "messages": []}).json()
    assert said["model"] == "b"
    assert said["asked"][:2] == ["POST", "/v1/chat/completions"]
    form = ask("POST", "/v1/images/edits", data={"model": "b"}, files={"image": b"x"})
    assert form.json()["model"] == "b"


def test_the_first_one_answers_where_none_is_named():
    said = ask("POST", "/generate", json={"input_text": "hello"}).json()
    assert said["model"] == "a"
    assert json.loads(said["asked"][2]) == {"input_text": "hello", "model": "a"}


def test_models_are_listed_and_looked_up():
    listed = ask("GET", "/v1/models").json()["data"]
    assert [(model["id"], model["version"], model["draws"]) for model in listed] == [
        ("a", "3", True),
        ("b", "3", True),
    ]
    assert ask("GET", "/v1/models/b").json()["id"] == "b"
    missing = ask("GET", "/v1/models/c")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "model_not_found"


def test_its_state_counts_replicas():
    well = ask("GET", "/health?workers=3")
    assert well.status_code == 200
    assert well.json() == {
        "status": "ok",
        "workers": 3,
        "models": ["a", "b"],
        "replicas": {"a": 2, "b": 1},
    }
    assert ask("GET", "/health?workers=4").status_code == 503


def test_the_originals_clients_find_their_way():
    assert ask("POST", "/list_models").json() == {"models": ["a", "b"]}
    assert ask("POST", "/get_worker_address", json={"model": "b"}).json() == {
        "address": "http://here:7"
    }
    assert ask("POST", "/worker_get_status").json() == {
        "model_names": ["a", "b"],
        "speed": 3,
        "queue_length": 0,
    }


@pytest.mark.parametrize("path", ["/docs", "/openapi.json"])
def test_the_page_of_the_api_is_that_of_a_replica(path):
    assert ask("GET", path, keys=[KEY]).json()["asked"][:2] == ["GET", path]


def test_figures_are_said_to_be_elsewhere():
    refused = ask("GET", "/metrics")
    assert refused.status_code == 404
    assert "ray_mllm_npu_" in refused.json()["error"]["message"]


def test_only_keys_open_it():
    body = {"model": "a", "messages": []}
    assert ask("POST", "/v1/chat/completions", keys=[KEY], json=body).status_code == 401
    opened = {"authorization": f"Bearer {KEY}"}
    reply = ask("POST", "/v1/chat/completions", keys=[KEY], json=body, headers=opened)
    assert reply.status_code == 200
    assert ask("GET", "/health", keys=[KEY]).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/chat/completions", b"{", 400),
        ("/v1/chat/completions", b'{"model": "c"}', 404),
        ("/v1/chat/completions", b'{"model": 7}', 400),
        ("/v1/chat/completions", b" " * 100, 413),
        ("/nothing", b"{}", 404),
    ],
)
def test_refusals_have_openais_form(path, body, status):
    refused = ask("POST", path, content=body, limits=Limits(max_body_bytes=50))
    assert refused.status_code == status
    assert refused.json()["error"]["message"]


def test_refusals_to_the_originals_clients_are_chunks():
    refused = ask("POST", "/worker_generate", json={"input_text": "a", "model": "c"})
    assert refused.status_code == 404
    assert json.loads(refused.content.rstrip(b"\0"))["error_code"] != 0


class Handle:
    def options(self, **_):
        return self


def test_a_front_that_needs_keys_does_not_start_without(monkeypatch, tmp_path):
    monkeypatch.delenv(KEYS_VARIABLE, raising=False)
    with pytest.raises(ConfigError, match="there are none on this machine"):
        front.Front({"a": Handle()}, worker=[], api_keys=None, needs_keys=True)
    monkeypatch.setenv(KEYS_VARIABLE, KEY)
    front.Front({"a": Handle()}, worker=[], api_keys=None, needs_keys=True)
    (tmp_path / "keys").write_text(KEY)
    monkeypatch.delenv(KEYS_VARIABLE)
    front.Front({"a": Handle()}, worker=[], api_keys=str(tmp_path / "keys"), needs_keys=True)
