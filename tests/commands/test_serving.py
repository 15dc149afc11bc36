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
import torch

from mllm_npu.cli import main
from mllm_npu.commands import serving
from mllm_npu.device import placement, platform
from mllm_npu.serve import dispatch

SCRIPT = Path(__file__).with_name("play_serve.py")
SECONDS = 60.0


class Serve:
    """The command in a process of its own."""

    def __init__(self, folder, *typed):
        self.folder, self.seen = folder, set()
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
        self.seen.update(found.values())
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
        if self.process.poll() is None:
            self.children()
            self.process.kill()
        self.process.communicate()
        for pid in filter(is_running, self.seen):  # parts that outlived it
            os.kill(pid, signal.SIGKILL)


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


def is_running(pid):
    """Not ended; one that has ended may wait for somebody to ask how."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


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


def test_a_service_that_is_killed_leaves_no_part_and_no_port_behind(serve):
    service = serve("--workers", "2")
    addresses = service.ready()
    parts = service.children().values()
    assert len(parts) == 3
    service.process.kill()
    service.process.wait()
    wait_until(lambda: not any(is_running(pid) for pid in parts))
    assert all(is_gone(url) for url in [addresses["controller"], *addresses["workers"]])


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


@pytest.fixture
def planned(tmp_path, monkeypatch, capsys):
    """The workers that would be started on a machine with so many accelerators."""

    def plan(*typed, num_devices):
        row = platform.platform_named("npu")
        monkeypatch.setattr(placement, "pick_device", lambda _: torch.device("meta"))
        monkeypatch.setattr(placement, "platform_of", lambda _: row)
        monkeypatch.setattr(placement, "num_devices", lambda _: num_devices)
        plans = []
        monkeypatch.setattr(serving, "_run", lambda plan, **_: plans.append(plan))
        assert main(["serve", str(tmp_path), "--port", "0", "--no-page", *typed]) == 0
        seen = [part.environment.get(row.visibility) for part in plans[0].workers]
        words = [part.command[part.command.index("--device") + 1] for part in plans[0].workers]
        return seen, words, capsys.readouterr().err

    return plan


def test_each_worker_has_a_device_of_its_own(planned, tmp_path):
    (tmp_path / "more").mkdir()
    seen, words, said = planned(str(tmp_path / "more"), "--workers", "2", num_devices=8)
    assert seen == ["0", "1", "2", "3"]
    assert words == ["npu"] * 4
    assert "share" not in said


def test_fewer_devices_than_workers_are_shared_in_turn_which_is_told(planned):
    seen, _, said = planned("--workers", "5", num_devices=2)
    assert seen == ["0", "1", "0", "1", "0"]
    assert "5 workers share npu:0, npu:1, in turn" in said


def test_one_worker_chooses_by_itself_unless_a_number_is_given(planned):
    assert planned(num_devices=8)[:2] == ([None], ["auto"])
    assert planned("--device", "npu:3", num_devices=8)[:2] == (["3"], ["npu"])


@pytest.mark.parametrize("typed", [[], ["--quantize", "int8"]])
def test_a_shipped_model_is_served_by_its_name(typed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plans = []
    monkeypatch.setattr(serving, "_run", lambda plan, **_: plans.append(plan))
    assert main(["serve", "digits", "--port", "0", "--no-page", *typed]) == 0
    [worker] = plans[0].workers
    words = list(worker.command)
    assert words[words.index("--model") + 1] == "digits"
    assert words[-2:] == (typed or words[-2:])
    assert ("--quantize" in words) == bool(typed)


def test_where_workers_are_is_told(serve):
    service = serve("--workers", "2", "--device", "cpu")
    assert service.ready()["devices"] == ["cpu", "cpu"]


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
