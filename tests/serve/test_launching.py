"""Parts start, are watched, are started again after growing pauses, and stop in their order."""

import signal
import sys
import threading
import time

import httpx
import pytest

from mllm_npu.errors import ServingError
from mllm_npu.serve.launching import LONGEST_PAUSE_SECONDS, Part, Service, free_ports

SERVER = """
import http.server, os, signal, sys, time
port, folder, stubborn = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "stubborn"

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(404 if self.path == "/missing" else 200)
        self.end_headers()
    def log_message(self, *_):
        pass

def leave(*_):
    with open(f"{folder}/left", "a") as left:
        left.write(f"{port}\\n")
    if not stubborn:
        os._exit(0)

signal.signal(signal.SIGTERM, leave)
print("hello", os.environ.get("WORD"), flush=True)
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
FAILS = "import sys; print('first'); sys.exit('no such model')"


@pytest.fixture
def make_part(tmp_path):
    """Makes parts; ends what is left of them."""
    made = []

    def make(name="part", *, program=SERVER, mode="obedient"):
        [port] = free_ports(1)
        part = Part(
            name=name,
            command=(sys.executable, "-c", program, str(port), str(tmp_path), mode),
            url=f"http://127.0.0.1:{port}",
            log=tmp_path / f"{name}.log",
            environment={"WORD": "there"},
        )
        made.append(part)
        return part

    yield make
    for part in made:
        part.send(signal.SIGKILL)
        if part.process is not None:
            part.process.wait()


def service_of(*parts, drain=5.0):
    said = []
    return Service(parts, say=said.append, drain_seconds=drain), said


def start(service, seconds=30.0):
    return service.start(seconds=seconds, stopping=threading.Event(), progress=lambda *_: None)


def wait_until(is_true, seconds=30):
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_all_parts_become_ready_and_the_way_there_is_told(make_part):
    parts, steps = [make_part("one"), make_part("two")], []
    service, _ = service_of(*parts)
    with service:
        assert service.start(
            seconds=30, stopping=threading.Event(), progress=lambda *step: steps.append(step)
        )
        assert all(httpx.get(part.url, trust_env=False).is_success for part in parts)
        assert steps[-1] == (2, 2)
        assert parts[0].last_words() == "hello there"
    assert all(part.has_ended() for part in parts)


def test_parts_stop_in_reverse_order(make_part, tmp_path):
    parts = [make_part(name) for name in ("worker", "controller", "page")]
    service, _ = service_of(*parts)
    with service:
        start(service)
    left = (tmp_path / "left").read_text().split()
    assert left == [part.url.rpartition(":")[2] for part in reversed(parts)]


def test_a_part_that_fails_at_the_start_is_told_and_the_others_are_stopped(make_part):
    good, bad = make_part("good"), make_part("bad", program=FAILS)
    service, _ = service_of(good, bad)
    with (
        pytest.raises(ServingError, match=r"bad ended with code 1 .* first / no such model"),
        service,
    ):
        start(service)
    assert good.has_ended()


def test_a_part_that_is_never_ready_is_told(make_part):
    slow = make_part("slow", program="import time; time.sleep(60)")
    service, _ = service_of(slow)
    with pytest.raises(ServingError, match="slow did not become ready within"), service:
        start(service, seconds=0.5)
    assert slow.has_ended()


def test_waiting_can_be_broken_off(make_part):
    slow, stopping = make_part("slow", program="import time; time.sleep(60)"), threading.Event()
    stopping.set()
    service, _ = service_of(slow)
    with service:
        assert not service.start(seconds=30, stopping=stopping, progress=lambda *_: None)


def test_a_part_that_dies_is_started_again_at_its_address(make_part):
    part, stopping = make_part(), threading.Event()
    service, said = service_of(part)
    with service:
        start(service)
        watching = threading.Thread(target=service.watch, args=(stopping,))
        watching.start()
        part.send(signal.SIGKILL)
        wait_until(lambda: part.num_restarts == 1 and part.is_healthy())
        stopping.set()
        watching.join()
    assert said == ["part ended (SIGKILL); start 2 in 0.5 s. It said: hello there"]


def test_a_part_that_hangs_is_killed_once_it_was_well(make_part, monkeypatch):
    monkeypatch.setattr("mllm_npu.serve.launching.LOOK_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr("mllm_npu.serve.launching.PROBE_SECONDS", 0.2)
    monkeypatch.setattr("mllm_npu.serve.launching.UNWELL_SECONDS", 0.5)
    part, never = make_part("part"), make_part("never", program="import time; time.sleep(60)")
    service, said = service_of(part)
    part.start()
    never.start()
    wait_until(lambda: service.look_after(part) or part.well is not None)
    part.send(signal.SIGSTOP)
    wait_until(lambda: service.look_after(part) or part.due is not None)
    assert said[0] == "part has not been well for 0.5 s and is killed"
    assert said[1].startswith("part ended (SIGKILL); start 2 in 0.5 s.")
    service.look_after(never)
    assert not never.has_ended()


def test_being_ready_may_need_more_than_being_well(make_part):
    part = make_part()
    part.ready = "missing"
    part.health = "/"
    part.start()
    wait_until(part.is_healthy)
    assert not part.is_ready()


def test_pauses_grow_to_a_limit_and_begin_anew_after_a_steady_time(make_part, monkeypatch):
    part = make_part(program=FAILS)
    service, said = service_of(part)
    part.start()
    pauses = []
    for _ in range(9):
        part.process.wait()
        service.look_after(part)
        pauses.append(part.due - time.monotonic())
        part.due = 0.0
        service.look_after(part)
    assert [round(pause, 1) for pause in pauses[:4]] == [0.5, 1, 2, 4]
    assert pauses[-1] == pytest.approx(LONGEST_PAUSE_SECONDS, abs=0.2)
    assert part.num_restarts == 9
    part.process.wait()
    part.started -= 100
    service.look_after(part)
    assert part.due - time.monotonic() < 0.6
    assert "start 11 in 0.5 s" in said[-1]
    assert "code 1" in said[-1]


def test_a_part_that_does_not_stop_is_killed(make_part, monkeypatch):
    monkeypatch.setattr("mllm_npu.serve.launching.KILL_SECONDS", 0.3)
    part = make_part(mode="stubborn")
    service, said = service_of(part, drain=0.2)
    with service:
        start(service)
    assert part.process.returncode == -signal.SIGKILL
    assert said == ["part does not stop and is killed"]


def test_killing_ends_all_at_once(make_part):
    parts = [make_part("one"), make_part("two")]
    service, _ = service_of(*parts)
    with service:
        start(service)
        service.kill()
        wait_until(lambda: all(part.has_ended() for part in parts))


def test_free_ports_differ():
    assert len(set(free_ports(20))) == 20
