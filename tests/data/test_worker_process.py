"""Workers start beside threads, see the trainer to its end, and end with it however it ends."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import play_workers
import pytest
from play_workers import Seen

from mllm_npu.data import worker_process
from mllm_npu.data.worker_process import begin_worker, prepare_workers, read_in_workers

SECONDS = 60.0


def has_ended(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


def wait_until(is_true):
    deadline = time.monotonic() + SECONDS
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def trainer():
    """A trainer in a session of its own, and the processes that read for it."""
    with subprocess.Popen(
        [sys.executable, play_workers.__file__],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        pids = json.loads(process.stdout.readline())
        yield process, pids
        process.kill()
    for pid in pids:
        if not has_ended(pid):
            os.kill(pid, signal.SIGKILL)


def test_workers_give_what_is_asked_for_in_its_order():
    items = list(read_in_workers(Seen(), iter(range(20)), num_workers=2))
    assert [key for key, *_ in items] == list(range(20))
    workers, servers = ({item[place] for item in items} for place in (1, 2))
    assert len(workers) == 2
    assert len(servers) == 1
    assert os.getpid() not in workers | servers
    assert all(is_deaf_to_ctrl_c for *_, is_deaf_to_ctrl_c in items)


def test_a_lock_that_a_thread_holds_is_not_held_in_workers():
    """In a copy of this process it would be, and nobody there would give it back."""
    release = threading.Event()

    def hold():
        with play_workers.LOCK:
            release.wait(SECONDS)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        begun = time.monotonic()
        items = read_in_workers(Seen(), iter(range(4)), num_workers=2)
        assert [next(items)[0] for _ in range(4)] == [0, 1, 2, 3]
        assert time.monotonic() - begun < SECONDS
    finally:
        release.set()
        holder.join()


def test_workers_end_with_a_trainer_that_is_killed(trainer):
    process, pids = trainer
    assert len(pids) == 3
    assert not any(has_ended(pid) for pid in pids)
    process.kill()
    process.wait()
    wait_until(lambda: all(has_ended(pid) for pid in pids))


def test_a_worker_that_is_killed_is_noticed():
    items = read_in_workers(Seen(), iter(range(10_000)), num_workers=1)
    os.kill(next(items)[1], signal.SIGKILL)
    begun = time.monotonic()
    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        list(items)
    assert time.monotonic() - begun < SECONDS


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_to_the_whole_group_lets_the_trainer_end_its_step(trainer, number):
    process, pids = trainer
    os.killpg(process.pid, number)
    rest = json.loads(process.stdout.readline())
    assert rest == list(range(10, 100))
    assert process.wait(SECONDS) == 0
    wait_until(lambda: all(has_ended(pid) for pid in pids))


def test_a_worker_that_is_told_twice_ends():
    code = (
        "import os, signal, time\n"
        "from mllm_npu.data.worker_process import begin_worker\n"
        "begin_worker()\n"
        "print('begun', flush=True)\n"
        "while True: time.sleep(0.05)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as worker:
        assert worker.stdout.readline() == b"begun\n"
        for number in (signal.SIGINT, signal.SIGTERM):
            worker.send_signal(number)
            time.sleep(0.5)
            assert worker.poll() is None
        worker.terminate()
        assert worker.wait(SECONDS) == -signal.SIGTERM


def test_a_stop_signal_that_comes_while_the_server_starts_is_not_lost(monkeypatch):
    taken = []
    before = signal.signal(signal.SIGTERM, lambda *_: taken.append(1))
    monkeypatch.setattr(
        "mllm_npu.data.worker_process.forkserver.ensure_running",
        lambda: os.kill(os.getpid(), signal.SIGTERM) or taken.append("started"),
    )
    try:
        prepare_workers()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert sorted(map(str, taken)) == ["1", "started"]


def test_a_worker_keeps_memory_that_it_frees(monkeypatch):
    called = []
    monkeypatch.setattr("mllm_npu.data.worker_process.tune_allocator", lambda: called.append(1))
    monkeypatch.setattr("mllm_npu.data.worker_process.signal.signal", lambda *_: None)
    begin_worker()
    assert called == [1]


def test_the_end_of_a_parent_is_seen_at_once(monkeypatch):
    ended = threading.Event()
    monkeypatch.setattr(worker_process.os, "_exit", lambda code: ended.set())
    mine, theirs = multiprocessing.get_context("spawn").Pipe()
    watch = threading.Thread(target=worker_process._end_with, args=(mine.fileno(),))
    watch.start()
    time.sleep(0.05)
    assert not ended.is_set()
    theirs.close()
    assert ended.wait(5)
    watch.join()
    mine.close()
