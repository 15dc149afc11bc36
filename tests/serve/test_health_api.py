"""Health, figures and the page of the API."""

import httpx


def test_health(scripted):
    with scripted.running() as worker:
        reply = httpx.get(f"{worker.url}/health")
        assert (reply.status_code, reply.json()) == (
            200,
            {"status": "ok", "queued": 1, "running": 2},
        )
        worker.service.reception.draining = True
        reply = httpx.get(f"{worker.url}/health")
        assert (reply.status_code, reply.json()["status"]) == (503, "draining")


def test_an_engine_that_has_failed_is_not_healthy(scripted, monkeypatch):
    monkeypatch.setattr("mllm_npu.serve.worker_server.LOOK_SECONDS", 60)
    with scripted.running() as worker:
        worker.answerer.error = "boom"
        reply = httpx.get(f"{worker.url}/health")
        assert (reply.status_code, reply.json()["status"]) == (503, "failed")


def test_metrics(plain_worker):
    reply = httpx.get(f"{plain_worker.url}/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "mllm_npu_time_to_first_token_seconds_bucket" in reply.text


def test_the_page_loads_nothing_and_runs_nothing(plain_worker):
    reply = httpx.get(f"{plain_worker.url}/docs")
    assert reply.headers["content-security-policy"].startswith("default-src 'none'")
    assert "/v1/chat/completions" in reply.text
    assert "<script" not in reply.text
    assert "https://" not in reply.text


def test_the_description_names_every_endpoint(plain_worker):
    paths = httpx.get(f"{plain_worker.url}/openapi.json").json()["paths"]
    assert set(paths) == {
        "/v1/chat/completions",
        "/v1/images/generations",
        "/v1/images/edits",
        "/v1/models",
        "/v1/models/{model}",
        "/worker_generate",
        "/worker_get_status",
        "/health",
        "/metrics",
    }
