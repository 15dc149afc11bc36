"""A worker whose replies are written down in the test: a real server, without a model."""

import asyncio
import queue
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import torch
from PIL import Image

from mllm_npu.errors import BusyError, RequestError
from mllm_npu.inference.events import Finished, ImageMade, TextDelta
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.serve.app import make_service
from mllm_npu.serve.limits import Limits
from mllm_npu.serve.pictures_in import refuse_addresses
from mllm_npu.serve.protocol import ModelCard
from mllm_npu.serve.worker_server import WorkerServer

SECONDS = 30.0


class ScriptedTicket:
    """Plays a script in a thread of its own; ``answerer.gate`` holds it before its first event."""

    def __init__(self, answerer, script):
        self.answerer, self.script = answerer, script
        self.cancelled = threading.Event()
        self._events = queue.SimpleQueue()
        threading.Thread(target=self._play, daemon=True).start()

    @property
    def position(self):
        return 0 if self.answerer.gate.is_set() else 3

    def cancel(self):
        self.cancelled.set()
        self.answerer.cancelled.append(self)
        self._events.put(None)

    def __iter__(self):
        while (event := self._events.get()) is not None:
            if isinstance(event, BaseException):
                raise event
            yield event

    def _play(self):
        self.answerer.gate.wait(SECONDS)
        for event in self.script:
            if self.cancelled.is_set():
                return
            if isinstance(event, float):
                time.sleep(event)
            else:
                self._events.put(event)
        self._events.put(None)


class ScriptedAnswerer:
    """Answers as ``write`` says, at most ``room`` at once."""

    def __init__(self, write):
        self.write = write
        self.asked, self.cancelled, self.open = [], [], []
        self.gate = threading.Event()
        self.gate.set()
        self.room = 64
        self.error = None
        self.closed = False

    def submit(self, conversation, options):
        if self.closed:
            raise RequestError("The engine takes no more requests.")
        if len(self.open) >= self.room:
            raise BusyError("Too many wait.")
        self.asked.append((conversation, options))
        script = self.write(conversation, options)
        if isinstance(script, BaseException):
            raise script
        return ScriptedTicket(self, script)

    def stats(self):
        return SimpleNamespace(queued=1, running=2, error=self.error)

    def close(self, *, drain=True):
        self.closed = True


def finished(reason="stop", prompt=5, new=3, pictures=0, boxes=()):
    return Finished(
        reason=reason,
        num_prompt_tokens=prompt,
        num_new_tokens=new,
        num_pictures=pictures,
        boxes=boxes,
    )


def drawn(colour="red", size=(6, 4)):
    return ImageMade(picture=Image.new("RGB", size, colour), features=torch.zeros(1, 1))


def write_plainly(conversation, options):
    """Two pieces of text, or one picture whose colour follows from the seed."""
    if options.images == "force":
        return [drawn((options.seed or 0, 0, 0)), finished("length", new=1, pictures=1)]
    return [TextDelta(text="Hello"), TextDelta(text=" world"), finished()]


class Worker:
    """A running server and what it was asked."""

    def __init__(self, server, answerer, loop):
        self.server, self.answerer, self.loop = server, answerer, loop
        self.url = f"http://127.0.0.1:{server.port}"
        self.service = server.service

    @property
    def num_open(self):
        return self.service.reception.num_open

    def stop(self):
        self.loop.call_soon_threadsafe(self.server.stop)

    def wait_for(self, is_true, what="it"):
        deadline = time.monotonic() + SECONDS
        while not is_true():
            assert time.monotonic() < deadline, f"{what} did not come"
            time.sleep(0.01)


def make_scripted_service(answerer, *, fetch=refuse_addresses, draws=True, **limits):
    return make_service(
        answerer=answerer,
        card=ModelCard(id="play", draws=draws, max_tokens=64),
        defaults=GenerationOptions(max_new_tokens=16),
        limits=Limits(**limits),
        fetch=fetch,
    )


@contextmanager
def running(write=write_plainly, *, answerer=None, fetch=refuse_addresses, server=None, **limits):
    """A worker on a free port of loopback, in a thread; it has ended when the context is left."""
    answerer = answerer or ScriptedAnswerer(write)
    service = make_scripted_service(answerer, fetch=fetch, **limits)
    loop = asyncio.new_event_loop()
    worker_server = WorkerServer(
        service, host="127.0.0.1", port=0, **({"drain_seconds": 5.0} | (server or {}))
    )
    failures = []

    def run():
        try:
            loop.run_until_complete(worker_server.run())
        except Exception as error:  # noqa: BLE001 - the test looks at it
            failures.append(error)
        finally:
            loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert worker_server.ready.wait(SECONDS), failures
    worker = Worker(worker_server, answerer, loop)
    worker.thread, worker.failures = thread, failures
    try:
        yield worker
    finally:
        answerer.gate.set()
        if thread.is_alive():
            worker.stop()
        thread.join(SECONDS)
        assert not thread.is_alive()
