"""Models, health, figures and the OpenAPI page of a controller."""

import asyncio

import httpx
import pytest

from mllm_npu.serve.controller import create_app
from mllm_npu.serve.controller_pages import describe_forwarded
from mllm_npu.serve.dispatch import ShortestQueue
from mllm_npu.serve.protocol import FORWARDED_PATHS, ModelCard
from mllm_npu.serve.registry import Registry
from mllm_npu.serve.security import ApiKeys


@pytest.fixture
def registry():
    registry = Registry()
    card = ModelCard(id="org/tiny", version="3", draws=True, max_tokens=99)
    registry.register("http://127.0.0.1:1", [card])
    return registry


@pytest.fixture
def get(registry):
    app = create_app(registry=registry, pick=ShortestQueue(), keys=ApiKeys())

    def get(path):
        async def ask():
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://c") as client:
                return await client.get(path)

        return asyncio.run(ask())

    return get


def test_models_have_openais_form(get):
    page = get("/v1/models").json()
    assert page["object"] == "list"
    [card] = page["data"]
    assert card["created"] > 1.7e9
    del card["created"]
    assert card == {
        "id": "org/tiny",
        "object": "model",
        "owned_by": "mllm-npu",
        "version": "3",
        "draws": True,
        "max_tokens": 99,
    }
    assert get("/v1/models/org/tiny").json()["id"] == "org/tiny"


def test_another_model_is_refused_with_those_that_are(get):
    reply = get("/v1/models/gpt")
    assert reply.status_code == 404
    assert "here is org/tiny" in reply.json()["error"]["message"]


def test_health_may_ask_for_a_number_of_workers(get):
    well = {"status": "ok", "workers": 1, "models": ["org/tiny"]}
    assert get("/health").json() == well
    assert get("/health?workers=1").status_code == 200
    assert get("/health?workers=2").status_code == 503
    assert get("/health?workers=many").status_code == 400


def test_workers_are_listed(get, registry):
    next(iter(registry)).load = 4
    [worker] = get("/workers").json()
    assert worker == {
        "url": "http://127.0.0.1:1",
        "models": ["org/tiny@3"],
        "load": 4,
        "in_flight": 0,
        "draining": False,
    }


def test_figures_are_a_page_of_prometheus(get):
    reply = get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=")
    assert "mllm_npu_controller_workers 1.0" in reply.text


def test_what_is_passed_on_is_on_the_openapi_page(get):
    page = get("/openapi.json").json()
    for path in FORWARDED_PATHS:
        assert "requestBody" in page["paths"][path]["post"]
        assert "503" in page["paths"][path]["post"]["responses"]
    names = [each["operationId"] for path in page["paths"].values() for each in path.values()]
    assert len(names) == len(set(names))


def test_the_page_for_people_tells_bodies_and_replies_and_loads_nothing(get):
    page = get("/docs")
    for piece in ("repetition_penalty", "ChatCompletionChunk", "image_steps", "No worker has"):
        assert piece in page.text
    assert "<script" not in page.text
    assert "https://" not in page.text
    for path in ("/redoc", "/docs/oauth2-redirect"):
        assert get(path).status_code == 404


def test_forms_are_described_as_forms():
    [kind] = describe_forwarded("/v1/images/edits")["openapi_extra"]["requestBody"]["content"]
    assert kind == "multipart/form-data"


@pytest.mark.parametrize("path", ["/v1/none", "/none", "/v1/chat/completions"])
def test_paths_that_are_not_there_are_refused_in_json(get, path):
    reply = get(path)
    assert reply.status_code in (404, 405)
    assert "error" in reply.json()
