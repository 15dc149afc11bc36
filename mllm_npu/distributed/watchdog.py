"""A thread per process that names the rank a run waits for, instead of hanging.

Each process tells a store shared by all ranks how far it is, and watches the next rank. Who stays
silent has died; who is there and does not get on hangs. The first to notice writes a verdict that
all others read, so the work does not grow with the square of the number of ranks.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch.distributed as dist

from mllm_npu.device.platform import PLATFORMS
from mllm_npu.distributed.mesh import Mesh
from mllm_npu.distributed.progress import Progress
from mllm_npu.errors import MllmNpuError, TrainingError

EXIT_HUNG = 75
"""Exit code of a process that ends itself because the run hangs (EX_TEMPFAIL: try again)."""
_VERDICT = "verdict"
_LEFT = "left"
_MAX_NAMED = 8
_EXCHANGE = (
    "connection closed",
    "connection reset",
    "processgroup",
    *(platform.collective_backend for platform in PLATFORMS),
)


class Watchdog:
    """Watches inside a ``with`` block.

    Args:
        progress: of this process; its notes are how far it is.
        rank: of this process.
        world_size: number of processes.
        timeout_seconds: how long nothing may happen.
        folder: where a report with the stacks of all threads is written; None writes none.
        store: shared by all ranks; None finds the one torchrun has made, where there are several.
        end: is called with the verdict on a hang; None ends the process, because a thread that
            waits in an exchange cannot be called back.
    """

    def __init__(
        self,
        *,
        progress: Progress,
        rank: int,
        world_size: int,
        timeout_seconds: float,
        folder: Path | None = None,
        store: dist.Store | None = None,
        end: Callable[[str], None] | None = None,
    ) -> None:
        self.progress = progress
        self.rank = rank
        self.world_size = world_size
        self.timeout_seconds = timeout_seconds
        self.folder = folder
        self.verdict: str | None = None
        self._store = store if store is not None or world_size == 1 else _connect(timeout_seconds)
        self._end = end or _end_process
        self._pause = min(5.0, timeout_seconds / 5)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._next_seen: tuple[str, float] = ("", time.monotonic())
        self._is_asked = False

    @classmethod
    def of(cls, mesh: Mesh, *, folder: Path | None = None) -> Self:
        """A watchdog for the ranks of a mesh, with its timeout."""
        return cls(
            progress=mesh.progress,
            rank=mesh.rank,
            world_size=mesh.world_size,
            timeout_seconds=mesh.timeout_seconds,
            folder=folder,
        )

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Turn an exchange that failed into an error that names the rank that is gone.

        Raises:
            TrainingError: another rank is gone, or has failed.
        """
        try:
            yield
        except MllmNpuError as error:
            self.tell_failure(f"{type(error).__name__}: {error}")
            raise
        except RuntimeError as error:
            if self.world_size == 1 or not _is_exchange(error):
                self.tell_failure(f"{type(error).__name__}: {error}")
                raise
            verdict = self.wait_for_verdict()
            if verdict is None:
                raise
            raise TrainingError(
                f"The run cannot go on: {verdict.rstrip('.')}. The same command goes on from the "
                "last checkpoint."
            ) from error

    def __enter__(self) -> Self:
        if self._store is not None:
            # At once: who ends before the first look must be missed too.
            self._store.set(f"rank/{self.rank}", self._describe(0.0))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._thread.join(timeout=2 * self._pause)
        if self._store is not None and error is None:
            self._store.set(f"rank/{self.rank}", _LEFT)

    def tell_failure(self, reason: str) -> None:
        """Let the other ranks know that this one ends with an error."""
        # This process ends by its own error, not by reading here what it tells the others.
        self._is_asked = True
        self._announce(f"rank {self.rank} has failed: {' '.join(reason.split())[:500]}")

    def wait_for_verdict(self) -> str | None:
        """What is known of the others, once an exchange with them has failed here.

        Returns:
            The verdict; None where none came in time.
        """
        self._is_asked = True
        deadline = time.monotonic() + self.timeout_seconds + 2 * self._pause
        while self.verdict is None and time.monotonic() < deadline and self._thread.is_alive():
            time.sleep(min(0.1, self._pause))
        return self.verdict

    def _watch(self) -> None:
        while not self._stopping.wait(self._pause):
            try:
                self._look()
            except (RuntimeError, OSError) as error:
                # The store is gone with the process that held it.
                self._conclude(f"the store of all ranks cannot be reached: {error}")
            if self.verdict is not None:
                return

    def _look(self) -> None:
        silent = time.monotonic() - self.progress.since
        if self._store is not None:
            self._store.set(f"rank/{self.rank}", self._describe(silent))
            if self._store.check([_VERDICT]):
                self._conclude(self._store.get(_VERDICT).decode(), announce=False)
                return
            self._watch_next()
        if silent > self.timeout_seconds:
            self._conclude(self._explain_hang(silent))

    def _watch_next(self) -> None:
        assert self._store is not None
        other = (self.rank + 1) % self.world_size
        key = f"rank/{other}"
        now = self._store.get(key).decode() if self._store.check([key]) else ""
        if now == _LEFT:
            return
        if now != self._next_seen[0]:
            self._next_seen = (now, time.monotonic())
        elif now and time.monotonic() - self._next_seen[1] > self.timeout_seconds / 2:
            # Sooner than a hang, which it would look like as well: the others wait for this rank.
            self._conclude(f"rank {other} is gone. It was last seen: {_tell(json.loads(now))}")

    def _describe(self, silent: float) -> str:
        progress = self.progress
        return json.dumps(
            {
                "rank": self.rank,
                "host": os.uname().nodename,
                "process": os.getpid(),
                "step": progress.step,
                "phase": progress.phase,
                "collective": progress.collective,
                "waits": progress.inside_collective,
                "beats": progress.beats,
                "silent": round(silent, 1),
                "keys": list(progress.keys[:_MAX_NAMED]),
                "clock": round(time.time(), 1),
            }
        )

    def _explain_hang(self, silent: float) -> str:
        """Say who does not get on: the rank that is not in an exchange, or is furthest behind."""
        states = [json.loads(self._describe(silent))]
        if self._store is not None:
            keys = [f"rank/{rank}" for rank in range(self.world_size) if rank != self.rank]
            found = [self._store.get(k).decode() for k in keys if self._store.check([k])]
            states += [json.loads(text) for text in found if text != _LEFT]
        # Ranks note the same things, so the one with the fewest notes has come least far.
        states.sort(key=lambda state: (state["step"], state["waits"], state["beats"]))
        return (
            f"nothing has happened for {silent:.0f} s; the run waits for rank "
            f"{states[0]['rank']}. {'. '.join(_tell(state) for state in states[:_MAX_NAMED])}"
        )

    def _conclude(self, verdict: str, *, announce: bool = True) -> None:
        self.verdict = verdict
        if announce:
            self._announce(verdict)
        self._write_report(verdict)
        if not self._is_asked:
            self._end(verdict)

    def _announce(self, verdict: str) -> None:
        if self._store is None:
            return
        try:
            # The first verdict counts; the others follow from it.
            self._store.compare_set(_VERDICT, "", verdict)
        except (RuntimeError, OSError):
            return

    def _write_report(self, verdict: str) -> None:
        if self.folder is None:
            return
        lines = [verdict, self._describe(time.monotonic() - self.progress.since), ""]
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        for identity, frame in sys._current_frames().items():
            lines += [f"thread {names.get(identity, identity)}:", *traceback.format_stack(frame)]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / f"hang-rank{self.rank}.txt"
            path.write_text("\n".join(lines), encoding="utf-8")
        except OSError:
            # The verdict itself goes to stderr; a full disk must not hide it.
            return


def _connect(timeout_seconds: float) -> dist.Store:
    """A connection of our own to the store the processes met at."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(
        host, port, is_master=False, timeout=timedelta(seconds=min(60.0, timeout_seconds))
    )
    return dist.PrefixStore(f"watchdog/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def _is_exchange(error: RuntimeError) -> bool:
    """Whether an error comes from an exchange between ranks; gloo has no type of its own for it."""
    said = str(error).lower()
    return isinstance(error, dist.DistError) or any(mark in said for mark in _EXCHANGE)


def _tell(state: dict[str, Any]) -> str:
    where = f"waits in {state['collective']}" if state["waits"] else state["phase"]
    keys = f", samples {', '.join(state['keys'])}" if state["keys"] else ""
    return (
        f"rank {state['rank']} (process {state['process']} on {state['host']}): step "
        f"{state['step']}, {where} for {state['silent']:.0f} s, last exchange "
        f"{state['collective']}{keys}"
    )


def _end_process(verdict: str) -> None:
    sys.stderr.write(f"TrainingError: The run cannot go on: {verdict}\n")
    sys.stderr.flush()
    os._exit(EXIT_HUNG)
