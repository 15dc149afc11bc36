"""Requests and replies between a client and replicas that play."""

import asyncio
import json

import pytest

from mllm_npu.errors import BusyError, ServingError
from mllm_npu.serve.ray_forwarding import Relayed, Request

CHAT = "/v1/chat/completions"
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/a")]}
DRAINING = {**START, "status": 503}
END = {"type": "http.response.body", "body": b"", "more_body": False}
EVENTS = {**START, "headers": [(b"content-type", b"text/event-stream")]}


def piece(body):
    return {"type": "http.response.body", "body": body, "more_body": True}


class Replicas:
    """Answers every try with the next script; an exception is raised, a number is waited for."""

    def __init__(self, *scripts):
        self.scripts = list(scripts)
        self.asked, self.left = [], 0

    async def ask(self, **request):
        self.asked.append(request)
        script = self.scripts.pop(0)
        try:
            for item in script:
                if isinstance(item, Exception):
                    raise item
                if isinstance(item, (int, float)):
                    await asyncio.sleep(item)
                else:
                    yield [item]
        except (GeneratorExit, asyncio.CancelledError):
            self.left += 1
            raise


class Client:
    """Takes what is sent; goes away after ``patience`` seconds."""

    def __init__(self, patience=60):
        self.patience, self.messages, self.counts = patience, [], []

    async def receive(self):
        await asyncio.sleep(self.patience)
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.messages.append(message)

    @property
    def status(self):
        return self.messages[0]["status"]

    @property
    def body(self):
        return b"".join(message.get("body", b"") for message in self.messages)

    def ask(self, replicas, *, path=CHAT, seconds=10, pauses=(0, 0.01, 0.01, 0.01)):
        request = Request(method="POST", path=path, headers=((b"a", b"b"),), body=b"{}")
        relayed = Relayed(
            replicas.ask, request, seconds=seconds, count=self.counts.append, pauses=pauses
        )
        scope = {"type": "http", "path": path, "method": "POST", "headers": []}
        asyncio.run(asyncio.wait_for(relayed(scope, self.receive, self.send), 20))
        return self


def test_a_reply_is_passed_back_as_it_is():
    replicas = Replicas([START, piece(b"one"), piece(b"two"), END])
    client = Client().ask(replicas)
    assert client.messages == [START, piece(b"one"), piece(b"two"), END]
    assert replicas.asked == [
        {"method": "POST", "path": CHAT, "query": b"", "headers": [(b"a", b"b")], "body": b"{}"}
    ]
    assert client.counts == [1, -1]


def test_the_id_is_left_to_the_proxy():
    named = {**START, "headers": [*START["headers"], (b"x-request-id", b"7")]}
    assert Client().ask(Replicas([named, END])).messages == [START, END]


def test_one_that_dies_or_refuses_costs_nothing_but_time():
    gone = ServingError("The replica is gone.")
    replicas = Replicas([DRAINING, piece(b"no"), END], [gone], [START, piece(b"yes"), END])
    client = Client().ask(replicas)
    assert client.messages == [START, piece(b"yes"), END]
    assert len(replicas.asked) == 3


def test_the_last_refusal_is_passed_on():
    client = Client().ask(Replicas(*[[DRAINING, piece(b"no"), END]] * 4))
    assert client.messages == [DRAINING, piece(b"no"), END]


def test_what_brings_two_replicas_down_is_given_up():
    replicas = Replicas(*[[ServingError("gone")]] * 4)
    client = Client().ask(replicas)
    assert client.status == 502
    assert json.loads(client.body)["error"]["code"] == "worker_failed"
    assert len(replicas.asked) == 2


def test_too_many_are_told_when_to_come_back():
    client = Client().ask(Replicas([BusyError("Too many wait.")]))
    assert client.status == 429
    assert (b"retry-after", b"1") in client.messages[0]["headers"]
    assert json.loads(client.body)["error"]["type"] == "busy_error"


@pytest.mark.parametrize(
    ("path", "start", "end"),
    [
        (CHAT, EVENTS, b"data: [DONE]\n\n"),
        ("/worker_generate", {**START, "headers": []}, b"\0"),
    ],
)
def test_a_reply_that_breaks_off_is_ended_in_its_form(path, start, end):
    replicas = Replicas([start, piece(b"begun"), ServingError("gone")])
    client = Client().ask(replicas, path=path)
    assert client.status == 200
    assert b"worker_failed" in client.body
    assert client.body.endswith(end)
    assert not client.messages[-1].get("more_body")


def test_where_there_is_no_room_for_it_the_connection_breaks_off():
    replicas = Replicas([START, piece(b"begun"), ServingError("gone")])
    with pytest.raises(ServingError, match="worker failed"):
        Client().ask(replicas)


def test_a_client_that_goes_takes_its_request_along():
    replicas = Replicas([EVENTS, piece(b"begun"), 60])
    client = Client(patience=0.05).ask(replicas)
    assert client.body == b"begun"
    assert replicas.left == 1
    assert client.counts == [1, -1]


def test_a_reply_that_takes_too_long_is_told():
    client = Client().ask(Replicas([60]), seconds=0.05)
    assert client.status == 504
    begun = Client().ask(Replicas([EVENTS, piece(b"begun"), 60]), seconds=0.05)
    assert b'"timeout"' in begun.body
