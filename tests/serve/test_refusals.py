"""Every failure has the form of the API it happened in."""

import httpx
import pytest


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/v1/chat/completions", 400),
    ],
)
def test_openai_form(plain_worker, method, path, status):
    reply = httpx.request(method, plain_worker.url + path)
    assert reply.status_code == status
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b'"x"', b"[" * 100_000])
def test_bodies_that_are_no_request(plain_worker, body):
    for path in ("/v1/chat/completions", "/v1/images/generations"):
        kind = {"content-type": "application/json"}
        reply = httpx.post(plain_worker.url + path, content=body, headers=kind)
        assert reply.status_code == 400
        assert reply.json()["error"]["type"] == "invalid_request_error"


def test_original_form(plain_worker):
    reply = httpx.get(f"{plain_worker.url}/worker_generate")
    assert reply.status_code == 405
    assert reply.content.endswith(b'"error_code":1}\0')


def test_a_failure_is_logged_and_not_told(scripted, caplog):
    with scripted.running(lambda *_: [OSError("/secret")]) as worker:
        reply = httpx.post(f"{worker.url}/worker_generate", json={"input_text": "x"})
    assert reply.status_code == 500
    assert b"secret" not in reply.content
    assert "/secret" in caplog.text


def test_what_a_client_has_sent_is_not_sent_back_whole(plain_worker):
    reply = httpx.post(f"{plain_worker.url}/v1/chat/completions", json={"x" * 50_000: 1})
    assert reply.status_code == 400
    assert len(reply.content) < 2000
