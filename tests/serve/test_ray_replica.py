"""A replica without Ray: a worker's application over an engine that plays."""

import asyncio
import json

import pytest

from mllm_npu.errors import ConfigError, ServingError

replicas = pytest.importorskip("mllm_npu.serve.ray_replica", exc_type=ImportError)


@pytest.fixture
def replica(scripted, monkeypatch):
    """One that says "Hello world"; its figures go nowhere."""

    class PlayReplica(replicas.ModelReplica):
        def load(self, words):
            assert words == ["--name", "play"]
            answerer = scripted.ScriptedAnswerer(scripted.write_plainly)
            return scripted.make_scripted_service(answerer)

    monkeypatch.setattr(replicas, "MetricsCopy", lambda registry: Copy())
    return PlayReplica(["--name", "play"])


class Copy:
    def stop(self):
        pass


def ask(replica, path, body, method="POST"):
    async def follow():
        headers = [(b"content-type", b"application/json")]
        return [
            message
            async for messages in replica.answer(
                method=method, path=path, query=b"", headers=headers, body=body
            )
            for message in messages
        ]

    return asyncio.run(asyncio.wait_for(follow(), 20))


def test_it_answers_as_a_worker_does(replica):
    body = {"model": "play", "messages": [{"role": "user", "content": "hello"}]}
    start, *rest = ask(replica, "/v1/chat/completions", json.dumps(body).encode())
    assert start["status"] == 200
    said = json.loads(b"".join(message["body"] for message in rest))
    assert said["choices"][0]["message"]["content"] == "Hello world"
    assert ask(replica, "/health", b"", "GET")[0]["status"] == 200


def test_it_says_what_it_is_in_plain_values(replica):
    card = asyncio.run(replica.card())
    assert card == {"id": "play", "version": "1", "draws": True, "max_tokens": 64}


def test_it_is_unwell_when_its_engine_is(replica):
    replica.check_health()
    replica.service.reception.answerer.error = "no memory"
    with pytest.raises(ServingError, match="no memory"):
        replica.check_health()


def test_its_engine_ends_with_it(replica):
    answerer = replica.service.reception.answerer
    replica.__del__()
    assert answerer.closed


def test_a_model_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ConfigError, match="mllm-npu train"):
        replicas.ModelReplica(["--model", str(tmp_path)])
