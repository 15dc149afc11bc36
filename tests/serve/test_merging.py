"""Several replies in one stream of numbered events."""

import asyncio

import pytest

from mllm_npu.errors import RequestError
from mllm_npu.inference.events import TextDelta
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import ask
from mllm_npu.serve.api_errors import ApiError
from mllm_npu.serve.merging import open_replies


def run(work):
    return asyncio.run(asyncio.wait_for(work, 20))


def read(scripted, write, num=3):
    answerer = scripted.ScriptedAnswerer(write)
    service = scripted.make_scripted_service(answerer)
    asked = [(ask("hi"), GenerationOptions(seed=seed)) for seed in range(num)]

    async def events():
        async with open_replies(service.reception, asked) as replies:
            return replies.position, [item async for item in replies.events()]

    try:
        return answerer, service, run(events())
    finally:
        assert service.reception.num_open == 0


@pytest.mark.parametrize("num", [1, 3])
def test_each_keeps_its_order(scripted, num):
    def write(conversation, options):
        pieces = [TextDelta(text=f"{options.seed}{number}") for number in range(5)]
        return [*pieces, scripted.finished()]

    _, _, (position, items) = read(scripted, write, num)
    assert position == 0
    for index in range(num):
        own = [event for number, event in items if number == index]
        assert [event.text for event in own[:-1]] == [f"{index}{number}" for number in range(5)]
    assert len(items) == 6 * num


def test_the_faster_one_is_not_held_back(scripted):
    def write(conversation, options):
        return [0.3 * (options.seed == 0), TextDelta(text="x"), scripted.finished()]

    _, _, (_, items) = read(scripted, write, 2)
    assert [number for number, _ in items] == [1, 1, 0, 0]


def test_the_failure_of_one_calls_the_others_off(scripted):
    tickets = []

    def write(conversation, options):
        tickets.append(options.seed)
        return [RequestError("no")] if options.seed == 1 else [5.0, scripted.finished()]

    with pytest.raises(ApiError, match="no"):
        read(scripted, write)
    assert tickets == [0, 1, 2]


def test_one_that_cannot_be_taken_calls_the_others_off(scripted):
    def write(conversation, options):
        return RequestError("no") if options.seed == 2 else [5.0, scripted.finished()]

    with pytest.raises(ApiError, match="no"):
        read(scripted, write)
