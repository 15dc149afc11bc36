"""Servers of the tests: processes on loopback, ended by their own numbers."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from mllm_npu.serve.launching import free_ports

PLAY_WORKER = Path(__file__).with_name("play_worker.py")
SCRIPTED = Path(__file__).with_name("scripted.py")
TOKEN = "a-token-of-the-tests"
SECONDS = 30.0


class Server:
    """A process that serves; what it says is in its log."""

    def __init__(self, name, command, port, log, *, token):
        self.name, self.url, self.log = name, f"http://127.0.0.1:{port}", log
        variables = {**os.environ, "MLLM_NPU_WORKER_TOKEN": token or "", "OMP_NUM_THREADS": "1"}
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, *map(str, command)], stdout=out, stderr=out, env=variables
            )

    def get(self, path):
        return httpx.get(self.url + path, timeout=SECONDS, trust_env=False)

    def post(self, path="/v1/chat/completions", *, headers=None, seconds=SECONDS, **body):
        return httpx.post(
            self.url + path, json=body, headers=headers, timeout=seconds, trust_env=False
        )

    def stream(self, path="/v1/chat/completions", **body):
        return httpx.stream("POST", self.url + path, json=body, timeout=SECONDS, trust_env=False)

    def play(self, **changes):
        assert self.post("/play", **changes).status_code == 200

    def seen(self):
        return self.get("/seen").json()

    def signal(self, number):
        os.kill(self.process.pid, number)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.process.wait(SECONDS)

    def end(self):
        if self.process.poll() is None:
            self.kill()

    def wait_until(self, is_true, what):
        """Wait for something this server says of itself."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            try:
                if is_true(self):
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.03)
        raise AssertionError(f"{self.name}: {what} did not come: {self.log.read_text()}")


class Servers:
    """Starts servers in a folder and ends all of them."""

    def __init__(self, folder):
        self.folder, self.started = folder, []

    def start(self, name, command, *, port=None, token=TOKEN):
        port = port or free_ports(1)[0]
        log = self.folder / f"{name}-{len(self.started)}.log"
        server = Server(name, [*command, "--port", port], port, log, token=token)
        self.started.append(server)
        return server

    def controller(self, *options, token=TOKEN, heartbeat=1.0):
        command = ["-m", "mllm_npu.serve.controller", "--heartbeat", heartbeat, *options]
        server = self.start("controller", command, token=token)
        server.wait_until(lambda it: it.get("/health").status_code == 200, "health")
        return server

    def worker(self, controller, name, *options, token=TOKEN, port=None):
        command = [PLAY_WORKER, "--controller", controller.url, "--name", name, *options]
        return self.start(name, command, token=token, port=port)

    def workers(self, controller, *names):
        """Several, once all of them are registered."""
        started = [self.worker(controller, name) for name in names]
        self.wait_for(controller, len(names))
        return started

    def wait_for(self, controller, number):
        controller.wait_until(lambda it: it.get("/health").json()["workers"] == number, number)

    def end(self):
        for server in self.started:
            server.end()


@pytest.fixture
def servers(tmp_path):
    """Starts controllers and workers that play."""
    started = Servers(tmp_path)
    yield started
    started.end()


@pytest.fixture(scope="module")
def standing(tmp_path_factory):
    """Servers that the tests of a module share."""
    started = Servers(tmp_path_factory.mktemp("servers"))
    yield started
    started.end()


def events(reply):
    """What a stream of events holds; ``[DONE]`` is None."""
    lines = [line[6:] for line in reply.split("\n") if line.startswith("data: ")]
    return [None if line == "[DONE]" else json.loads(line) for line in lines]


@pytest.fixture(scope="session")
def read_events():
    return events


def _load_scripted():
    spec = importlib.util.spec_from_file_location("scripted", SCRIPTED)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def scripted():
    """Workers whose replies a test writes; conftest files and their neighbours have no name."""
    return _load_scripted()


@pytest.fixture(scope="module")
def plain_worker(scripted):
    """One that the tests of a module share; says "Hello world", or draws."""
    with scripted.running() as worker:
        yield worker
