"""Worker and controller describe the same API, whole, and every name in it leads somewhere."""

import json
import re

import jsonschema
import pytest

from mllm_npu.serve.api_description import BODIES, DescribedApp, describe, describe_body
from mllm_npu.serve.app import build_app
from mllm_npu.serve.controller import create_app
from mllm_npu.serve.dispatch import ShortestQueue
from mllm_npu.serve.openai_models import PictureRequest
from mllm_npu.serve.protocol import (
    CHAT_PATH,
    EDIT_IMAGES_PATH,
    FORWARDED_PATHS,
    MODELS_PATH,
    ORIGINAL_GENERATE_PATH,
    ORIGINAL_STATUS_PATH,
)
from mllm_npu.serve.registry import Registry
from mllm_npu.serve.security import ApiKeys

SHARED = (*FORWARDED_PATHS, MODELS_PATH, MODELS_PATH + "/{model}", ORIGINAL_STATUS_PATH)
TOLD = ("description", "requestBody", "responses", "parameters")


@pytest.fixture(scope="module")
def pages(scripted):
    """The descriptions of a worker and of a controller."""
    service = scripted.make_scripted_service(scripted.ScriptedAnswerer(scripted.write_plainly))
    controller = create_app(registry=Registry(), pick=ShortestQueue(), keys=ApiKeys())
    return {"worker": build_app(service).openapi(), "controller": controller.openapi()}


@pytest.fixture(scope="module", params=["worker", "controller"])
def page(request, pages):
    return pages[request.param]


def without_docstrings(operation):
    return {name: operation.get(name) for name in TOLD if name != "description"}


@pytest.mark.parametrize("path", SHARED)
def test_a_controller_tells_what_a_worker_tells(pages, path):
    worker, controller = (pages[name]["paths"][path] for name in ("worker", "controller"))
    assert worker.keys() == controller.keys()
    for method, operation in worker.items():
        assert without_docstrings(operation) == without_docstrings(controller[method])
    if path in FORWARDED_PATHS:
        assert worker["post"]["description"] == controller["post"]["description"]


def test_what_is_named_on_both_is_the_same(pages):
    worker, controller = (pages[name]["components"]["schemas"] for name in ("worker", "controller"))
    shared = (worker.keys() & controller.keys()) - {"Health"}
    assert {"ChatRequest", "ChatCompletion", "ChatCompletionChunk", "TextPart"} <= shared
    assert {name for name in shared if worker[name] != controller[name]} == set()


def test_every_name_leads_somewhere_and_every_schema_is_one(page):
    schemas = page["components"]["schemas"]
    named = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(page)))
    assert named <= set(schemas)
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_reply_is_described(page):
    for path, methods in page["paths"].items():
        for method, operation in methods.items():
            told = operation["responses"]
            assert "422" not in told, path
            assert any(kind.isdigit() and told[kind]["content"] for kind in told), path
            assert "default" in told, path
            body = operation.get("requestBody", {}).get("content", {})
            if method == "post" and path in FORWARDED_PATHS:
                assert body, path


@pytest.mark.parametrize("path", BODIES)
def test_bodies_are_those_that_are_checked(page, path):
    [(media_type, kind)] = page["paths"][path]["post"]["requestBody"]["content"].items()
    name = BODIES[path].__name__
    assert media_type == "application/json"
    assert kind["schema"] == {"$ref": f"#/components/schemas/{name}"}
    fields = page["components"]["schemas"][name]["properties"]
    assert set(fields) == set(BODIES[path].model_fields)


def test_a_stream_is_described_by_its_events(page):
    content = page["paths"][CHAT_PATH]["post"]["responses"]["200"]["content"]
    data = content["text/event-stream"]["itemSchema"]["properties"]["data"]
    assert data["contentSchema"] == {"$ref": "#/components/schemas/ChatCompletionChunk"}
    assert content["application/json"]["schema"]["$ref"].endswith("/ChatCompletion")


def test_refusals_have_the_form_of_their_path(page):
    refused = page["paths"][CHAT_PATH]["post"]["responses"]["429"]["content"]
    assert refused == {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}}
    [kind] = page["paths"][ORIGINAL_GENERATE_PATH]["post"]["responses"]["429"]["content"]
    assert kind == "application/octet-stream"


def test_a_form_has_pictures_all_fields_and_no_null():
    content = describe_body(EDIT_IMAGES_PATH)["requestBody"]["content"]
    schema = content["multipart/form-data"]["schema"]
    assert schema["required"] == ["image", "prompt"]
    assert set(schema["properties"]) == {"image", "image[]", *PictureRequest.model_fields}
    assert "null" not in json.dumps(schema)
    assert schema["properties"]["n"] == {"type": "integer", "minimum": 1}


def test_a_description_is_made_once():
    app = DescribedApp(title="one")
    app.post(CHAT_PATH, **describe(CHAT_PATH))(lambda: None)
    assert app.openapi() is app.openapi()
    assert app.openapi()["paths"][CHAT_PATH]["post"]["operationId"] == "v1_chat_completions"
