"""A deployment asked through a handle that plays."""

import asyncio

import pytest

from mllm_npu.errors import BusyError, ServingError
from mllm_npu.serve.protocol import ModelCard

pytest.importorskip("ray.serve", reason="ray is not installed: pip install 'mllm-npu[ray]'")
from ray import exceptions
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from mllm_npu.serve import ray_handle


class Answer:
    """What a call gives: batches, or a value; an exception is raised where it stands."""

    def __init__(self, script):
        self.script, self.is_cancelled = list(script), False

    def cancel(self):
        self.is_cancelled = True

    def __aiter__(self):
        return self

    async def __anext__(self):
        if not self.script:
            raise StopAsyncIteration
        return await self._next()

    def __await__(self):
        return self._next().__await__()

    async def _next(self):
        item = self.script.pop(0)
        if isinstance(item, Exception):
            raise item
        if isinstance(item, float):
            await asyncio.sleep(item)
        return item


class Handle:
    """Plays ``answer`` and ``card``."""

    def __init__(self, *script):
        self.given, self.calls, self.streams = Answer(script), [], []
        self.answer = self.card = self

    def options(self, *, stream):
        self.streams.append(stream)
        return self

    def remote(self, **request):
        self.calls.append(request)
        return self.given


def run(work):
    return asyncio.run(asyncio.wait_for(work, 20))


def read(handle):
    async def follow():
        return [batch async for batch in ray_handle.ModelHandle(handle).ask(path="/a", body=b"b")]

    return run(follow())


def test_batches_come_as_they_are():
    handle = Handle([{"a": 1}], [{"b": 2}])
    assert read(handle) == [[{"a": 1}], [{"b": 2}]]
    assert handle.calls == [{"path": "/a", "body": b"b"}]
    assert handle.streams == [True]


def test_too_many_requests_are_ours_to_tell():
    with pytest.raises(BusyError, match="Ask again later"):
        read(Handle(BackPressureError(5, 5)))


@pytest.mark.parametrize(
    "error",
    [
        exceptions.ActorDiedError(),
        exceptions.WorkerCrashedError(),
        DeploymentUnavailableError("a"),
    ],
)
def test_a_replica_that_is_gone_is_told_in_one_line(error):
    handle = Handle([{"a": 1}], error)
    with pytest.raises(ServingError, match="does not answer") as caught:
        read(handle)
    assert "\n" not in str(caught.value)
    assert handle.given.is_cancelled


def test_leaving_early_calls_the_request_off():
    handle = Handle([{"a": 1}], [{"b": 2}])

    async def leave():
        batches = ray_handle.ModelHandle(handle).ask(path="/a")
        assert await anext(batches) == [{"a": 1}]
        await batches.aclose()

    run(leave())
    assert handle.given.is_cancelled


def test_a_card_comes_in_time_or_not_at_all(monkeypatch):
    card = ModelCard(id="a", version="2")
    assert run(ray_handle.ModelHandle(Handle(card.model_dump())).card()) == card
    monkeypatch.setattr(ray_handle, "CARD_SECONDS", 0.01)
    slow = Handle(5.0)
    assert run(ray_handle.ModelHandle(slow).card()) is None
    assert slow.given.is_cancelled
    assert run(ray_handle.ModelHandle(Handle(exceptions.ActorDiedError())).card()) is None
