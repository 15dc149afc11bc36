"""Requests are counted, measured, refused and let go."""

import asyncio

import pytest

from mllm_npu.errors import RequestError
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import ask
from mllm_npu.serve.api_errors import ApiError

OPTIONS = GenerationOptions()


@pytest.fixture
def answerer(scripted):
    return scripted.ScriptedAnswerer(scripted.write_plainly)


@pytest.fixture
def service(scripted, answerer):
    return scripted.make_scripted_service(answerer)


def value(service, name):
    return service.metrics.registry.get_sample_value(f"mllm_npu_{name}")


def run(work):
    return asyncio.run(asyncio.wait_for(work, 20))


async def read(service, options=OPTIONS):
    async with service.reception.open(ask("hi"), options) as reply:
        return [event async for event in reply.events()]


def test_a_reply_is_measured(service):
    assert len(run(read(service))) == 3
    assert value(service, "new_tokens_total") == 3
    assert value(service, "prompt_tokens_total") == 5
    assert value(service, "time_to_first_token_seconds_count") == 1
    assert value(service, "reply_seconds_count") == 1
    assert value(service, "picture_seconds_count") == 0
    assert service.reception.num_open == 0


def test_a_picture_is_measured(service):
    run(read(service, GenerationOptions(images="force")))
    assert value(service, "pictures_total") == 1
    assert value(service, "picture_seconds_count") == 1


@pytest.mark.parametrize(
    ("prepare", "status", "code"),
    [
        (lambda answerer: setattr(answerer, "room", 0), 429, "busy"),
        (lambda answerer: setattr(answerer, "closed", True), 400, None),
        (lambda a: [setattr(a, "closed", True), setattr(a, "error", "x")], 503, "engine_failed"),
        (lambda a: setattr(a, "write", lambda *_: [RequestError("no")]), 400, None),
        (lambda a: setattr(a, "write", lambda *_: RequestError("no")), 400, None),
        (lambda a: setattr(a, "write", lambda *_: []), 503, None),
    ],
)
def test_refusals_have_their_status(service, answerer, prepare, status, code):
    prepare(answerer)
    with pytest.raises(ApiError) as caught:
        run(read(service))
    assert (caught.value.status, caught.value.code) == (status, code)
    assert service.reception.num_open == 0


def test_draining_refuses_what_is_new_and_waits_for_what_runs(service, answerer):
    async def drain():
        answerer.gate.clear()
        running = asyncio.ensure_future(read(service))
        await asyncio.sleep(0.05)
        assert service.reception.num_open == 1
        assert not await service.reception.drain(0.05)
        with pytest.raises(ApiError) as caught:
            await read(service)
        assert (caught.value.status, caught.value.code) == (503, "draining")
        answerer.gate.set()
        assert await service.reception.drain(10)
        return await running

    assert len(run(drain())) == 3


def test_leaving_while_it_is_submitted_calls_it_off(service, answerer):
    real = answerer.submit

    def slow(*asked):
        import time

        time.sleep(0.2)
        return real(*asked)

    answerer.submit = slow

    async def leave():
        reading = asyncio.ensure_future(read(service))
        await asyncio.sleep(0.05)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await asyncio.sleep(0.4)

    run(leave())
    assert len(answerer.cancelled) == 1
    assert service.reception.num_open == 0
