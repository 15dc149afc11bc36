"""Requests are counted by path, kept apart by id, and no path of a client becomes a label."""

import re

import httpx
import pytest


def counts(worker):
    page = httpx.get(f"{worker.url}/metrics").text
    return dict(re.findall(r"^(mllm_npu_\w+\{[^}]*\}) ([0-9.]+)$", page, re.MULTILINE))


def test_requests_are_counted(scripted):
    with scripted.running() as worker:
        httpx.get(f"{worker.url}/health")
        httpx.get(f"{worker.url}/nowhere/<script>")
        httpx.post(f"{worker.url}/v1/chat/completions", json={})
        found = counts(worker)
        assert found['mllm_npu_requests_total{path="/health",status="200"}'] == "1.0"
        assert found['mllm_npu_requests_total{path="other",status="404"}'] == "1.0"
        assert found['mllm_npu_requests_total{path="/v1/chat/completions",status="400"}'] == "1.0"
        assert found['mllm_npu_errors_total{kind="not_found_error"}'] == "1.0"
        assert not any("script" in name for name in found)


def test_a_failure_is_counted(scripted):
    with scripted.running(lambda *_: [OSError("x")]) as worker:
        body = {"model": "play", "messages": [{"role": "user", "content": "hi"}]}
        assert httpx.post(f"{worker.url}/v1/chat/completions", json=body).status_code == 500
        assert counts(worker)['mllm_npu_errors_total{kind="server_error"}'] == "1.0"


@pytest.mark.parametrize("given", ["abc-1.2_3", "x" * 128])
def test_an_id_comes_back(plain_worker, given):
    reply = httpx.get(f"{plain_worker.url}/health", headers={"x-request-id": given})
    assert reply.headers["x-request-id"] == given
    assert reply.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("given", ["", "a b", "<b>", "x" * 129])
def test_another_word_does_not(plain_worker, given):
    reply = httpx.get(f"{plain_worker.url}/health", headers={"x-request-id": given})
    assert re.fullmatch(r"[0-9a-f]{32}", reply.headers["x-request-id"])
