"""An application asked within a process."""

import asyncio

import pytest

from mllm_npu.serve.asgi_call import call_app, http_scope

SCOPE = http_scope(method="POST", path="/ask", query=b"n=1", headers=[(b"content-type", b"a/b")])


def run(work):
    return asyncio.run(asyncio.wait_for(work, 20))


async def answer(app, body=b""):
    return [messages async for messages in call_app(app, SCOPE, body)]


def test_the_application_is_told_what_was_asked():
    seen = {}

    async def app(scope, receive, send):
        seen.update(scope, body=await receive())
        await send({"type": "http.response.start", "status": 200})

    assert run(answer(app, b"text")) == [[{"type": "http.response.start", "status": 200}]]
    assert (seen["method"], seen["path"], seen["query_string"]) == ("POST", "/ask", b"n=1")
    assert seen["headers"] == [(b"content-type", b"a/b")]
    assert seen["body"] == {"type": "http.request", "body": b"text", "more_body": False}


def test_messages_come_as_they_are_sent_and_together_where_they_wait():
    async def app(scope, receive, send):
        await send({"number": 0})
        await asyncio.sleep(0.05)
        for number in (1, 2, 3):
            await send({"number": number})

    batches = run(answer(app))
    assert [[message["number"] for message in batch] for batch in batches] == [[0], [1, 2, 3]]


def test_no_message_is_lost_at_the_end():
    async def app(scope, receive, send):
        for number in range(100):
            await send({"number": number})
            if number % 7 == 0:
                await asyncio.sleep(0)

    batches = run(answer(app))
    assert [message["number"] for batch in batches for message in batch] == list(range(100))


def test_leaving_early_calls_the_application_off():
    ended = []

    async def app(scope, receive, send):
        try:
            await receive()
            await send({"number": 0})
            await receive()  # nobody leaves in any other way
        finally:
            ended.append(True)

    async def leave():
        messages = call_app(app, SCOPE, b"")
        assert await anext(messages) == [{"number": 0}]
        await messages.aclose()
        return list(ended)

    assert run(leave()) == [True]


def test_a_failure_of_the_application_is_told_after_what_it_has_sent():
    seen = []

    async def app(scope, receive, send):
        await send({"number": 0})
        raise ValueError("broken")

    async def follow():
        async for messages in call_app(app, SCOPE, b""):
            seen.extend(messages)

    with pytest.raises(ValueError, match="broken"):
        run(follow())
    assert seen == [{"number": 0}]
