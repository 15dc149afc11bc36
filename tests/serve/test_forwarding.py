"""What is passed on, what is tried again, and what is told: with real workers that die."""

import json
import signal
import threading
import time

import httpx
import pytest

CHAT = "/v1/chat/completions"
ORIGINAL = "/worker_generate"


@pytest.fixture(scope="module")
def controller(standing):
    return standing.controller()


@pytest.fixture(scope="module")
def pair(standing, controller):
    """Two workers that nobody harms."""
    return standing.workers(controller, "a", "b")


def test_chunks_are_passed_on_as_they_come(controller, pair):
    times, chunks = [], []
    began = time.monotonic()
    with controller.stream(model="tiny", play={"chunks": 5, "pause": 0.3}) as reply:
        for chunk in reply.iter_raw():
            times.append(time.monotonic() - began)
            chunks.append(chunk)
    assert len(chunks) >= 3  # two may come together where the machine is busy
    assert times[0] < times[-1] - 0.6
    assert reply.headers["content-type"] == "text/event-stream"


def test_a_reply_is_passed_on_byte_by_byte(controller, pair):
    play = {"chunks": 3, "media_type": "application/json", "length": True}
    reply = controller.post(model="tiny", play=play)
    name = reply.headers["x-worker"]
    whole = [json.dumps({"worker": name, "number": number}) + "\0" for number in range(3)]
    assert reply.text == "".join(whole)
    assert reply.headers["content-length"] == str(len(reply.content))


def test_a_client_that_leaves_takes_its_request_with_it(controller, pair):
    before = sum(server.seen()["left"] for server in pair)
    for play in ({"chunks": 100, "pause": 0.1}, {"wait": 20}):
        with (
            pytest.raises(httpx.ReadTimeout),
            httpx.stream(
                "POST",
                controller.url + CHAT,
                json={"model": "tiny", "play": play},
                timeout=httpx.Timeout(5, read=0.05 if "pause" in play else 0.3),
                trust_env=False,
            ) as reply,
        ):
            for _ in reply.iter_raw():
                pass
    controller.wait_until(
        lambda _: sum(server.seen()["left"] for server in pair) == before + 2, "leaving"
    )
    controller.wait_until(lambda it: all(w["in_flight"] == 0 for w in it.get("/workers").json()), 0)
    assert 'ending="cancelled"' in controller.get("/metrics").text


@pytest.mark.parametrize("status", [429, 503])
def test_what_one_worker_refuses_another_takes(controller, pair, status):
    pair[0].play(status=status)
    names = [controller.post(model="tiny").headers["x-worker"] for _ in range(4)]
    assert names == ["b"] * 4
    pair[1].play(status=status)
    refused = controller.post(model="tiny")
    assert refused.status_code == status
    assert refused.json()["refused_by"] in "ab"
    for server in pair:
        server.play(status=0)


def test_what_a_worker_says_of_a_bad_request_is_passed_on(controller, pair):
    reply = controller.post(model="tiny", play={"status": 422})
    assert reply.status_code == 422
    assert "refused_by" in reply.text


def test_a_request_that_kills_workers_kills_two_and_no_more(servers):
    controller = servers.controller()
    workers = servers.workers(controller, "a", "b", "c")
    reply = controller.post(model="tiny", play={"chunks": 2, "die_at": 0})
    assert reply.status_code == 502
    assert reply.json()["error"]["code"] == "worker_failed"
    # Its connection is closed a moment before a killed process has ended.
    deadline = time.monotonic() + 30
    while len(alive := [each for each in workers if each.process.poll() is None]) > 1:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert len(alive) == 1
    # Whoever is dead is noticed when something is put to it, and that goes on to the one alive.
    for _ in range(3):
        assert controller.post(model="tiny").headers["x-worker"] == alive[0].name


def test_a_request_whose_worker_dies_before_the_first_byte_is_answered(servers):
    controller = servers.controller()
    workers = servers.workers(controller, "a", "b")
    answers = []

    def ask():
        answers.append(controller.post(model="tiny", play={"wait": 2}))

    asking = threading.Thread(target=ask)
    asking.start()
    holder = None
    while holder is None:
        holder = next((each for each in workers if each.seen()["open"]), None)
    holder.kill()
    asking.join(20)
    other = next(each for each in workers if each is not holder)
    assert answers[0].status_code == 200
    assert answers[0].headers["x-worker"] == other.name
    assert "retries_total 1.0" in controller.get("/metrics").text


@pytest.mark.parametrize("path", [CHAT, ORIGINAL])
def test_a_worker_killed_in_the_middle_is_told_in_the_stream(servers, read_events, path):
    controller = servers.controller()
    servers.workers(controller, "a")
    kind = "text/event-stream" if path == CHAT else "application/json"
    play = {"chunks": 9, "pause": 0.05, "die_at": 3, "media_type": kind}
    began = time.monotonic()
    reply = controller.post(path, model="tiny", play=play)
    assert time.monotonic() - began < 5
    if path == CHAT:
        *pieces, error, done = read_events(reply.text)
        assert [piece["number"] for piece in pieces] == [0, 1, 2]
        assert error["error"]["code"] == "worker_failed"
        assert done is None
    else:
        *pieces, error, end = reply.content.split(b"\0")
        assert len(pieces) == 3
        assert json.loads(error)["error_code"] == 3
        assert end == b""
    assert controller.post(path, model="tiny").status_code == 503


def test_a_reply_of_told_length_breaks_off(servers):
    controller = servers.controller()
    servers.workers(controller, "a")
    play = {"chunks": 9, "die_at": 3, "pause": 0.05, "length": True, "media_type": "image/png"}
    with pytest.raises(httpx.RemoteProtocolError):
        controller.post(model="tiny", play=play)


def test_a_silent_worker_is_gone_within_two_heartbeats_and_what_waits_for_it_is_told(
    servers, read_events
):
    controller = servers.controller()
    [worker] = servers.workers(controller, "a")
    with controller.stream(model="tiny", play={"chunks": 9, "pause": 0.2}) as reply:
        lines = reply.iter_text()
        text = next(lines)
        worker.signal(signal.SIGSTOP)
        began = time.monotonic()
        text += "".join(lines)
        seconds = time.monotonic() - began
    assert read_events(text)[-2]["error"]["code"] == "worker_failed"
    assert seconds < 2 * 1.0 + 1.5
    assert controller.get("/health").json()["workers"] == 0
    worker.signal(signal.SIGCONT)
    servers.wait_for(controller, 1)
    assert controller.post(model="tiny").status_code == 200


@pytest.mark.parametrize("change", ["draining", "farewell"])
def test_draining_and_leaving_workers_get_nothing_new_and_finish(servers, read_events, change):
    controller = servers.controller(heartbeat=0.5)
    workers = {worker.name: worker for worker in servers.workers(controller, "a", "b")}
    with controller.stream(model="tiny", play={"chunks": 12, "pause": 0.25}) as reply:
        texts = reply.iter_text()
        text = next(texts)
        holder = workers.pop(reply.headers["x-worker"])
        [other] = workers
        holder.play(**{change: True})
        controller.wait_until(
            lambda it: all(
                each["url"] != holder.url or each["draining"] for each in it.get("/workers").json()
            ),
            change,
        )
        assert holder.seen()["open"] == 1
        names = [controller.post(model="tiny").headers["x-worker"] for _ in range(3)]
        assert names == [other] * 3
        text += "".join(texts)
    assert len(read_events(text)) == 12
