"""A worker on a port: announced, drained, and ended when its engine has failed."""

import threading
import time

import httpx
import pytest

from mllm_npu.errors import ConfigError, ServingError
from mllm_npu.serve.worker_server import WorkerServer, make_announcer

ASK = {"model": "play", "messages": [{"role": "user", "content": "hi"}]}


def ask_in_thread(worker):
    replies = []

    def ask():
        replies.append(httpx.post(f"{worker.url}/v1/chat/completions", json=ASK, timeout=30))

    thread = threading.Thread(target=ask)
    thread.start()
    worker.wait_for(lambda: worker.num_open == 1, "the request")
    return thread, replies


def test_stopping_finishes_what_runs_and_refuses_what_is_new(scripted):
    with scripted.running() as worker:
        worker.answerer.gate.clear()
        thread, replies = ask_in_thread(worker)
        worker.stop()
        worker.wait_for(lambda: worker.service.reception.draining, "draining")
        reply = httpx.post(f"{worker.url}/v1/chat/completions", json=ASK)
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "draining")
        assert httpx.get(f"{worker.url}/health").status_code == 503
        worker.answerer.gate.set()
        thread.join(20)
        worker.thread.join(20)
        assert not worker.thread.is_alive()
        assert worker.answerer.closed
    assert replies[0].json()["choices"][0]["message"]["content"] == "Hello world"
    assert worker.failures == []


def test_what_does_not_end_in_time_is_called_off(scripted):
    with scripted.running(server={"drain_seconds": 1.0}) as worker:
        worker.answerer.gate.clear()
        thread, _ = ask_in_thread(worker)
        began = time.monotonic()
        worker.stop()
        worker.thread.join(20)
        assert not worker.thread.is_alive()
        assert time.monotonic() - began < 15
        thread.join(20)
        assert not thread.is_alive()


def test_an_engine_that_fails_ends_the_worker(scripted, monkeypatch):
    monkeypatch.setattr("mllm_npu.serve.worker_server.LOOK_SECONDS", 0.05)
    with scripted.running() as worker:
        worker.answerer.error = "out of memory"
        worker.thread.join(20)
        assert not worker.thread.is_alive()
    (failure,) = worker.failures
    assert isinstance(failure, ServingError)
    assert "out of memory" in str(failure)


def test_a_port_that_is_taken(scripted):
    with scripted.running() as worker, pytest.raises(ConfigError, match="port"):
        WorkerServer(worker.service, host="127.0.0.1", port=worker.server.port)


def test_what_is_announced(scripted):
    answerer = scripted.ScriptedAnswerer(scripted.write_plainly)
    service = scripted.make_scripted_service(answerer, max_images=3)
    announcer = make_announcer(
        service, controller="http://127.0.0.1:1", url="http://127.0.0.1:2", token=None
    )
    assert announcer.registration.models == (service.card,)
    assert announcer.registration.limits.max_images == 3
    beat = announcer.beat()
    assert (beat.queued, beat.running, beat.models, beat.draining) == (1, 2, ("play",), False)
    service.reception.draining = True
    assert announcer.beat().draining


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_an_open_door_is_told(scripted, caplog, host, warned):
    service = scripted.make_scripted_service(scripted.ScriptedAnswerer(scripted.write_plainly))
    for keys in ([], ["a-key-for-tests"]):
        server = WorkerServer(service, host=host, port=0, keys=keys)
        caplog.clear()
        server._tell()
        server._socket.close()
        assert ("without API keys" in caplog.text) == (warned and not keys)
        assert server.url == f"http://127.0.0.1:{server.port}"
