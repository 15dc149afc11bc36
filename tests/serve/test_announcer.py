"""A worker stays known to its controller, whichever is started again."""

import asyncio
import http.server
import json
import threading

import pytest

from mllm_npu.serve.announcer import Announcer
from mllm_npu.serve.protocol import Heartbeat, ModelCard, Registration, WorkerLimits

REGISTRATION = Registration(
    url="http://127.0.0.1:40000",
    models=(ModelCard(id="play"),),
    software="1",
    limits=WorkerLimits(
        max_body_bytes=1, max_images=1, max_pixels=1, max_new_tokens=1, max_queue=1
    ),
)


class Controller:
    """Writes down what it hears, and answers as it is told."""

    def __init__(self):
        self.heard, self.known, self.refuses = [], True, 0
        controller = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                controller.heard.append((self.path, body, self.headers.get("authorization")))
                answer = {"known": controller.known}
                if self.path == "/register":
                    controller.known = True
                    answer = {"heartbeat_seconds": 0.02}
                status = 200
                if controller.refuses:
                    controller.refuses -= 1
                    status = 503
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def paths(self):
        return [path for path, _, _ in self.heard]

    def end(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(10)


@pytest.fixture
def controller():
    controller = Controller()
    yield controller
    controller.end()


def announcer_of(controller, token=None):
    def beat():
        return Heartbeat(url=REGISTRATION.url, queued=1, running=2, models=("play",))

    return Announcer(
        controller=controller.url + "/", registration=REGISTRATION, beat=beat, token=token
    )


def run_until(announcer, is_true, *, leave=False):
    async def work():
        telling = asyncio.ensure_future(announcer.run())
        async with asyncio.timeout(20):
            while not is_true():
                await asyncio.sleep(0.01)
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        if leave:
            await announcer.leave()

    asyncio.run(work())


def test_register_beat_and_leave(controller):
    announcer = announcer_of(controller, token="secret-token")
    run_until(announcer, lambda: len(controller.heard) >= 4, leave=True)
    assert controller.paths()[0] == "/register"
    assert controller.paths()[1] == "/heartbeat"
    assert controller.paths()[-1] == "/unregister"
    assert controller.heard[0][1]["models"][0]["id"] == "play"
    assert controller.heard[1][1] == {
        "url": REGISTRATION.url,
        "queued": 1,
        "running": 2,
        "models": ["play"],
        "draining": False,
    }
    assert {header for _, _, header in controller.heard} == {"Bearer secret-token"}
    assert not announcer.known


def test_a_controller_that_has_forgotten_hears_it_again(controller):
    def forgets():
        registered = controller.paths().count("/register")
        controller.known = "/heartbeat" not in controller.paths() or registered >= 3
        return registered >= 3

    run_until(announcer_of(controller), forgets)


def test_a_controller_that_refuses_is_asked_again(controller, monkeypatch):
    monkeypatch.setattr("mllm_npu.serve.announcer.FIRST_PAUSE", 0.01)
    controller.refuses = 3
    run_until(announcer_of(controller), lambda: "/heartbeat" in controller.paths())
    assert controller.paths()[:4] == ["/register"] * 4


def test_a_controller_that_is_not_there_stops_nothing(controller):
    controller.end()
    announcer = announcer_of(controller)
    asyncio.run(announcer.leave())
    assert not announcer.known
    controller = Controller()
    controller.end()
