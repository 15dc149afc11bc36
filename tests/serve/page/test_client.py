"""The client: what it asks, what it gives, and how it tells trouble."""

import json

import httpx
import pytest

from mllm_npu.serve.page.client import Controller, Model
from mllm_npu.serve.page.stream import Ends, Says
from mllm_npu.serve.page.trouble import AskError, Trouble

REPLY = (
    b'data: {"choices": [{"index": 0, "delta": {"content": "Hi"}}]}\n\n'
    b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
)


class Endless(httpx.AsyncByteStream):
    """A reply that never ends; knows when it is closed."""

    closed = False

    async def __aiter__(self):
        while True:
            yield REPLY.partition(b"\n\n")[0] + b"\n\n"

    async def aclose(self):
        self.closed = True


def make(answer, *, key=None):
    seen = []

    def handle(request):
        seen.append(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    transport = httpx.MockTransport(handle)
    return Controller(url="http://there:1/", key=key, transport=transport), seen


def test_models_are_listed_by_name(run):
    data = [{"id": "b", "draws": False}, {"id": "a"}, {"no": "id"}, 3]
    controller, seen = make(httpx.Response(200, json={"data": data}), key="of-the-page")
    assert run(controller.models()) == (Model(name="a"), Model(name="b", draws=False))
    assert str(seen[0].url) == "http://there:1/v1/models"
    assert seen[0].headers["authorization"] == "Bearer of-the-page"


def test_the_key_of_a_person_goes_before_the_one_of_the_page(run):
    controller, seen = make(httpx.Response(200, json={}), key="of-the-page")
    assert run(controller.models(key="mine")) == ()
    assert seen[0].headers["authorization"] == "Bearer mine"
    controller, seen = make(httpx.Response(200, json={}))
    run(controller.models())
    assert "authorization" not in seen[0].headers


def test_a_reply_streams(run):
    controller, seen = make(httpx.Response(200, content=REPLY))
    told = run(controller.ask({"model": "a", "messages": []}))
    assert told == [Says(text="Hi"), Ends(reason="stop")]
    assert json.loads(seen[0].content) == {"model": "a", "messages": [], "stream": True}
    assert seen[0].url.path == "/v1/chat/completions"


@pytest.mark.parametrize("what", ["models", "ask"])
@pytest.mark.parametrize(
    ("answer", "trouble"),
    [
        (httpx.Response(401, json={"error": {"message": "no"}}), Trouble.KEY),
        (httpx.Response(429, json={"error": {"message": "no"}}), Trouble.BUSY),
        (httpx.ConnectError("no"), Trouble.AWAY),
        (httpx.ReadError("no"), Trouble.CUT),
    ],
)
def test_trouble_is_told(run, what, answer, trouble):
    controller, _ = make(answer)
    with pytest.raises(AskError) as caught:
        run(controller.models() if what == "models" else controller.ask({}))
    assert caught.value.trouble is trouble


@pytest.mark.parametrize("key", ["schlüssel", "a\nb"])
def test_a_key_that_no_header_takes_is_told_before_it_is_sent(run, key):
    controller, seen = make(httpx.Response(200, json={}))
    with pytest.raises(AskError, match="one line of ASCII"):
        run(controller.models(key=key))
    assert seen == []


def test_leaving_early_closes_the_connection(run):
    stream = Endless()
    controller, _ = make(httpx.Response(200, stream=stream))

    async def leave():
        events = controller.ask({})
        await anext(events)
        assert not stream.closed
        await events.aclose()
        await controller.close()

    run(leave())
    assert stream.closed
