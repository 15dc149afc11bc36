"""Run the parts of a service as processes of this machine: start, watch, start again, stop."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import httpx

from mllm_npu.errors import ServingError
from mllm_npu.serve.protocol import HEALTH_PATH
from mllm_npu.serve.tether import tethered

LOOK_SECONDS = 0.2
_OWN_PORTS = (15000, 32000)
_TRIED_PORTS = 64
PROBE_SECONDS = 2.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
STEADY_SECONDS = 60.0
"""A part that has run so long begins with the shortest pause again."""
LOOK_AGAIN_SECONDS, UNWELL_SECONDS = 10.0, 60.0
"""A part that has answered and then has not for so long hangs, or its engine has failed."""
KILL_SECONDS = 5.0
LOG_LINES = 6


@dataclass(slots=True, kw_only=True)
class Part:
    """One process of a service.

    Args:
        name: as it is told to the person.
        command: program and arguments.
        url: where it is reached.
        log: file for what it says.
        health: path that answers when it is well.
        ready: what is added to it to ask whether all it needs is there as well.
        environment: variables in addition to those of this process.
        process: that runs; None before the start.
        num_restarts: times it was started again.
        started: when it was started last.
        due: when it is to be started again; None while it runs.
        pause: seconds until it is started again the next time.
        asked: when it was last asked whether it is well.
        well: when it last was; None since a start before it has been.
    """

    name: str
    command: tuple[str, ...]
    url: str
    log: Path
    health: str = HEALTH_PATH
    ready: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    num_restarts: int = 0
    started: float = 0.0
    due: float | None = None
    pause: float = FIRST_PAUSE_SECONDS
    asked: float = 0.0
    well: float | None = None

    def start(self) -> None:
        """Start the process; what it says is added to its log.

        It is in a group of its own, so that Ctrl-C reaches the person's command alone, which stops
        the parts in their order. It ends with the thread that starts it, also when this process is
        killed and can stop nothing.
        """
        self.started, self.due, self.well = time.monotonic(), None, None
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                tethered(self.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
                process_group=0,
            )

    def has_ended(self) -> bool:
        """Whether its process is not there any more."""
        return self.process is not None and self.process.poll() is not None

    def is_healthy(self) -> bool:
        """Whether it answers that it is well."""
        return _answers(self.url + self.health)

    def is_ready(self) -> bool:
        """Whether it is well and has all it needs."""
        return _answers(self.url + self.health + self.ready)

    def hangs(self, now: float) -> bool:
        """Whether it was well once, and has not been for too long."""
        if now - self.asked < LOOK_AGAIN_SECONDS:
            return False
        self.asked = now
        if self.is_healthy():
            self.well = now
        return self.well is not None and now - self.well > UNWELL_SECONDS

    def last_words(self) -> str:
        """The end of its log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return " / ".join(line.strip() for line in lines[-LOG_LINES:] if line.strip()) or "nothing"

    def send(self, number: int) -> None:
        """Send its process a signal, if it is still there."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)


class Service:
    """The parts of a service; as a context manager it stops them at the end, whatever happens.

    Args:
        parts: in the order in which they are started. They are stopped the other way round, so the
            part that clients reach comes last.
        say: takes lines for the person.
        drain_seconds: that each part gets to finish what it has begun.
    """

    def __init__(
        self, parts: Sequence[Part], *, say: Callable[[str], None], drain_seconds: float
    ) -> None:
        self.parts = list(parts)
        self._say, self._drain_seconds = say, drain_seconds

    def __enter__(self) -> Service:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(
        self,
        *,
        seconds: float,
        stopping: threading.Event,
        progress: Callable[[int, int], None],
    ) -> bool:
        """Start every part and wait until all are healthy.

        Args:
            seconds: to wait at most.
            stopping: set when the person does not want to wait any longer.
            progress: takes the number of parts that are ready, and of all.

        Returns:
            Whether all are ready; False after ``stopping``.

        Raises:
            ServingError: a part has ended, or is not ready in time.
        """
        for part in self.parts:
            part.start()
        deadline = time.monotonic() + seconds
        waiting = list(self.parts)
        while waiting:
            for part in waiting:
                if part.has_ended():
                    code = part.process.returncode if part.process else None
                    raise ServingError(
                        f"{part.name} ended with code {code} before it was ready. It said: "
                        f"{part.last_words()}. All of it is in {part.log}."
                    )
            if time.monotonic() > deadline:
                raise ServingError(
                    f"{part_names(waiting)} did not become ready within {seconds:g} seconds. See "
                    f"{waiting[0].log}, or give more time with --wait."
                )
            waiting = [part for part in waiting if not part.is_ready()]
            progress(len(self.parts) - len(waiting), len(self.parts))
            if waiting and stopping.wait(LOOK_SECONDS):
                return False
        return True

    def watch(self, stopping: threading.Event) -> None:
        """Start parts that end again, until ``stopping`` is set."""
        while not stopping.wait(LOOK_SECONDS):
            for part in self.parts:
                self.look_after(part)

    def look_after(self, part: Part) -> None:
        """Start a part that has ended again, after a pause that grows with each time.

        One that hangs is killed, and then started again like any other.
        """
        now = time.monotonic()
        if part.due is not None:
            if now >= part.due:
                part.num_restarts += 1
                part.start()
            return
        if not part.has_ended():
            if part.hangs(now):
                self._say(f"{part.name} has not been well for {UNWELL_SECONDS:g} s and is killed")
                part.send(signal.SIGKILL)
            return
        if now - part.started > STEADY_SECONDS:
            part.pause = FIRST_PAUSE_SECONDS
        part.due = now + part.pause
        code = part.process.returncode if part.process else None
        self._say(
            f"{part.name} ended ({_cause(code)}); start {part.num_restarts + 2} in "
            f"{part.pause:g} s. It said: {part.last_words()}"
        )
        part.pause = min(2 * part.pause, LONGEST_PAUSE_SECONDS)

    def stop(self) -> None:
        """Let every part finish what it has begun, the one that clients reach first."""
        for part in reversed(self.parts):
            part.due = None
            part.send(signal.SIGTERM)
            if part.process is None:
                continue
            try:
                part.process.wait(self._drain_seconds + KILL_SECONDS)
            except subprocess.TimeoutExpired:
                self._say(f"{part.name} does not stop and is killed")
                part.send(signal.SIGKILL)
                part.process.wait()

    def kill(self) -> None:
        """End every part at once."""
        for part in self.parts:
            part.send(signal.SIGKILL)


def free_ports(number: int, host: str = "127.0.0.1") -> list[int]:
    """Ports on which nothing listens now, each another one.

    They are below those a system gives to whoever asks for any, so that none of them is given away
    before the part that is to listen there has started.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    taken = [socket.socket(family, socket.SOCK_STREAM) for _ in range(number)]
    try:
        for each in taken:
            _bind_somewhere(each, host)
        return [each.getsockname()[1] for each in taken]
    finally:
        for each in taken:
            each.close()


def _bind_somewhere(each: socket.socket, host: str) -> None:
    chance = random.SystemRandom()
    for _ in range(_TRIED_PORTS):
        with contextlib.suppress(OSError):
            each.bind((host, chance.randrange(*_OWN_PORTS)))
            return
    each.bind((host, 0))


def part_names(parts: Sequence[Part]) -> str:
    """Parts as they are told to the person."""
    return ", ".join(part.name for part in parts)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=PROBE_SECONDS, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _cause(code: int | None) -> str:
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"code {code}"
