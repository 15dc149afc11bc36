"""``serve`` starts everything, keeps it running, and leaves nothing behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from mllm_npu.cli import main
from mllm_npu.commands import serving
from mllm_npu.serve import dispatch

SCRIPT = Path(__file__).with_name("play_serve.py")
SECONDS = 60.0


class Serve:
    """The command in a process of its own."""

    def __init__(self, folder, *typed):
        self.folder = folder
        command = [sys.executable, str(SCRIPT), str(folder), "--json", "--no-page", "--port", "0"]
        self.process = subprocess.Popen(
            [*command, "--logs", str(folder / "logs"), *typed],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ready(self):
        """The addresses, once everything is there."""
        line = self.process.stdout.readline()
        assert line, self.process.communicate(timeout=SECONDS)[1]
        self.addresses = json.loads(line)
        return self.addresses

    def children(self):
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                words = (folder / "cmdline").read_text().split("\0")
            except OSError:
                continue
            if int(parent) == self.process.pid and "--port" in words:
                found[words[words.index("--port") + 1]] = int(folder.name)
        return found

    def worker_pid(self, number=0):
        return self.children()[self.addresses["workers"][number].rpartition(":")[2]]

    def ask(self, **body):
        url = self.addresses["api"] + "/chat/completions"
        return httpx.post(url, json={"model": "tiny", **body}, trust_env=False, timeout=SECONDS)

    def workers(self):
        url = self.addresses["controller"] + "/health"
        return httpx.get(url, trust_env=False, timeout=SECONDS).json()["workers"]

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.communicate(timeout=SECONDS)[1]

    def end(self):
        for pid in self.children().values() if self.process.poll() is None else ():
            os.kill(pid, signal.SIGKILL)
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def serve(tmp_path):
    """Starts the command; ends it and its children."""
    started = []

    def start(*typed):
        started.append(Serve(tmp_path, *typed))
        return started[-1]

    yield start
    for each in started:
        each.end()


def wait_until(is_true):
    deadline = time.monotonic() + SECONDS
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_gone(url):
    try:
        httpx.get(url + "/health", trust_env=False, timeout=5)
    except httpx.ConnectError:
        return True
    return False


def test_everything_starts_answers_and_stops(serve):
    service = serve("--workers", "2")
    addresses = service.ready()
    assert service.workers() == 2
    assert addresses["api"] == addresses["controller"] + "/v1"
    assert all(url.startswith("http://127.0.0.1:") for url in addresses["workers"])
    assert addresses["page"] is None
    assert service.ask().status_code == 200
    children = service.children()
    assert len(children) == 3
    words = b" ".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children.values())
    assert b"token" not in words
    stranger = httpx.post(addresses["controller"] + "/register", json={}, trust_env=False)
    assert stranger.status_code == 401
    said = service.stop()
    assert service.process.returncode == 0, said
    assert "stopping" in said
    assert all(is_gone(url) for url in [addresses["controller"], *addresses["workers"]])


def test_a_worker_that_dies_is_started_again_and_counted(serve):
    service = serve()
    service.ready()
    for _ in range(2):
        pid = service.worker_pid()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: service.children() and service.ask().status_code == 200)
        assert service.worker_pid() != pid
    said = service.stop(signal.SIGINT)
    assert service.process.returncode == 0
    assert "worker 1 ended (SIGKILL); start 2 in 0.5 s" in said
    assert "worker 1 ended (SIGKILL); start 3 in 1 s" in said


def test_a_stop_lets_replies_end(serve):
    service = serve()
    service.ready()
    url = service.addresses["api"] + "/chat/completions"
    body = {"model": "tiny", "play": {"chunks": 5, "pause": 0.3}}
    with httpx.stream("POST", url, json=body, trust_env=False, timeout=SECONDS) as reply:
        texts = reply.iter_text()
        text = next(texts)
        service.process.send_signal(signal.SIGTERM)
        text += "".join(texts)
    assert text.count("data: {") == 5
    service.process.communicate(timeout=SECONDS)
    assert service.process.returncode == 0


def test_a_part_that_cannot_start_is_told_with_its_own_words(serve, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("short\n")
    service = serve("--api-keys", str(keys))
    _, said = service.process.communicate(timeout=SECONDS)
    assert service.process.returncode == 2
    assert "ServingError: controller ended with code 2 before it was ready" in said
    assert "An API key of fewer than" in said


def test_a_taken_port_is_told_with_what_to_do(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", str(tmp_path), "--port", str(port)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"ConfigError: Port {port} of 127.0.0.1 was asked for")
    assert "--port" in error


def test_a_run_that_is_not_there_is_told(tmp_path, capsys):
    assert main(["serve", str(tmp_path / "none"), "--port", "0"]) == 2
    assert "there is no such folder" in capsys.readouterr().err


def test_the_help_has_examples(capsys):
    assert main(["serve", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "mllm-npu serve runs/digits" in shown
    assert "--workers" in shown


def test_the_ways_to_dispatch_are_those_of_the_controller():
    assert [each.value for each in serving.Dispatch] == [each.value for each in dispatch.Dispatch]
