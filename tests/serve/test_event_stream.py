"""Streams: how they begin, how they end, what is left behind."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from mllm_npu.errors import RequestError
from mllm_npu.inference.events import TextDelta
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import ask
from mllm_npu.serve.api_errors import ApiError
from mllm_npu.serve.event_stream import EventStream, begin, server_sent
from mllm_npu.serve.merging import open_replies


class Request:
    async def receive(self):
        await asyncio.sleep(60)


def run(work):
    return asyncio.run(asyncio.wait_for(work, 20))


async def pieces_of(items, error=None):
    for item in items:
        yield item
    if error is not None:
        raise error


def play(pieces, *, leaves=False, breaks=False):
    """Run a stream as a server would; gives what was sent and whether its stack was left."""
    left, sent = [], []

    async def receive():
        await asyncio.sleep(0.1 if leaves else 60)
        return {"type": "http.disconnect"}

    async def send(message):
        if breaks and sent:
            raise OSError("broken pipe")
        sent.append(message)

    async def serve():
        stack = AsyncExitStack()
        stack.callback(left.append, True)
        stream = EventStream(pieces, closing=stack, media_type="text/event-stream")
        await stream({"type": "http"}, receive, send)

    run(serve())
    return sent, left == [True]


def test_everything_is_sent():
    sent, left = play(pieces_of([b"a", b"b"]))
    assert [message.get("body") for message in sent] == [None, b"a", b"b", b""]
    assert [message.get("more_body") for message in sent[1:]] == [True, True, False]
    headers = dict(sent[0]["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert headers[b"cache-control"] == b"no-cache"
    assert b"content-length" not in headers
    assert left


async def endless():
    while True:
        yield b"x"
        await asyncio.sleep(0.01)


def test_a_client_that_goes_ends_it():
    sent, left = play(endless(), leaves=True)
    assert len(sent) > 1
    assert left


def test_a_broken_connection_ends_it():
    sent, left = play(endless(), breaks=True)
    assert (len(sent), left) == (1, True)


def lines(scripted, script, *, gate=True, patience=5.0, seconds=10.0, metrics=None):
    """What a client gets; an ApiError is what it gets before the stream begins."""
    answerer = scripted.ScriptedAnswerer(lambda *_: script)
    service = scripted.make_scripted_service(answerer)
    if not gate:
        answerer.gate.clear()

    async def read():
        asked = [(ask("hi"), GenerationOptions())]
        async with open_replies(service.reception, asked) as replies:
            events, begun = await begin(Request(), replies, patience=patience)
            asyncio.get_running_loop().call_later(0.3, answerer.gate.set)
            sent = server_sent(
                ({"n": number} async for number, _ in events),
                replies=replies,
                begun=begun,
                seconds=seconds,
                metrics=service.metrics,
            )
            return [line.decode() async for line in sent]

    return service, run(read())


def test_the_first_event_is_not_lost(scripted):
    _, sent = lines(scripted, [TextDelta(text="a"), scripted.finished()])
    assert sent == ['data: {"n":0}\n\n', 'data: {"n":0}\n\n', "data: [DONE]\n\n"]


def test_a_refusal_comes_before_the_stream(scripted):
    with pytest.raises(ApiError, match="no"):
        lines(scripted, [RequestError("no")])


def test_a_wait_is_told_at_once(scripted):
    _, sent = lines(scripted, [scripted.finished()], gate=False, patience=0.01)
    assert sent[0] == ": 3 in front\n\n"
    assert sent[-2:] == ['data: {"n":0}\n\n', "data: [DONE]\n\n"]


@pytest.mark.parametrize(
    ("script", "words", "kind"),
    [
        ([TextDelta(text="a"), 0.2, RequestError("no room")], "no room", "invalid_request_error"),
        ([TextDelta(text="a"), 5.0], "not complete within", "timeout_error"),
    ],
)
def test_what_goes_wrong_later_is_told_and_counted(scripted, script, words, kind):
    service, sent = lines(scripted, script, seconds=0.5)
    assert words in sent[-2]
    assert sent[-1] == "data: [DONE]\n\n"
    labels = {"kind": kind}
    assert service.metrics.registry.get_sample_value("mllm_npu_errors_total", labels) == 1
