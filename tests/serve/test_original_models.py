"""Chunks and status are what the description of the API says, of a worker and of a controller."""

import json

import httpx
import pytest
from pydantic import ValidationError

from mllm_npu.errors import RequestError
from mllm_npu.serve.controller_replies import Reason, explain, original_chunk
from mllm_npu.serve.original_models import OriginalChunk, OriginalRequest, OriginalStatus


def chunks_of(content):
    *texts, rest = content.split(b"\0")
    assert rest == b""
    return texts


def fits(model, text):
    read = model.model_validate_json(text, strict=True)
    return json.loads(read.model_dump_json(exclude_unset=True)) == json.loads(text)


@pytest.mark.parametrize("asked", [{"image_gen": True}, {"image_gen": False}, {"image": "*"}])
def test_chunks_of_a_worker(plain_worker, asked):
    body = {"input_text": "Hi", **asked}
    reply = httpx.post(f"{plain_worker.url}/worker_generate", json=body, timeout=30)
    texts = chunks_of(reply.content)
    assert texts
    assert all(fits(OriginalChunk, text) for text in texts)


def test_a_chunk_that_tells_a_late_failure(scripted):
    with scripted.running(lambda *_: [0.1, RequestError("No room.")]) as worker:
        reply = httpx.post(f"{worker.url}/worker_generate", json={"input_text": "Hi"}, timeout=30)
        assert all(fits(OriginalChunk, text) for text in chunks_of(reply.content))


@pytest.mark.parametrize("reason", Reason)
def test_chunks_of_a_controller(reason):
    [text] = chunks_of(original_chunk(explain(reason, model="tiny", offered=["large"])))
    assert fits(OriginalChunk, text)


def test_a_status(plain_worker):
    said = httpx.post(f"{plain_worker.url}/worker_get_status").text
    assert OriginalStatus.model_validate_json(said).queue_length == 3


def test_what_other_clients_send_beside_a_question_changes_nothing():
    asked = OriginalRequest.model_validate({"input_text": "Hi", "speed": 3})
    assert asked == OriginalRequest(input_text="Hi")
    with pytest.raises(ValidationError, match="half a character"):
        OriginalRequest(input_text="\ud800")
