"""Start ranks of one machine, watch them, and say which one did not come to its end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch.distributed as dist

from mllm_npu.device.process import usable_cores

_HOST = "127.0.0.1"
_PAUSE = 0.05
_GRACE = 5.0
"""Seconds the others have once the first rank has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How it went.

    Args:
        output: what rank 0 has written to its standard output.
        code: exit code of rank 0; None where it had to be ended.
        complaints: one line for each rank that failed, or else was not ready in time; empty where
            rank 0 has answered.
    """

    output: str
    code: int | None
    complaints: tuple[str, ...]


def run_local_ranks(command: Sequence[str], size: int, *, seconds: float) -> Outcome:
    """Run a command as every one of some ranks, the way torchrun does; in bounded time.

    Rank 0 speaks: its standard error is that of this process. The store at which they meet is
    held here, so it outlives every rank.

    Args:
        command: what each rank runs. Exit code 0 is an end without fault; rank 0 may also give 1
            where it has written an answer.
        size: number of ranks.
        seconds: after which those that are left are ended.

    Raises:
        OSError: a process cannot be started.
    """
    store = dist.TCPStore(_HOST, 0, is_master=True, wait_for_workers=False)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        processes: list[subprocess.Popen[bytes]] = []
        for rank in range(size):
            processes.append(_start(command, rank, size, store.port, folder))
            stack.callback(_end, processes[-1])
        _watch(processes, time.monotonic() + seconds)
        codes = [process.poll() for process in processes]
        output = (folder / "out-0").read_text(encoding="utf-8", errors="replace")
        if codes[0] in (0, 1) and output.strip():
            # It knows more than that others were still waiting.
            return Outcome(output=output, code=codes[0], complaints=())
        failed = [rank for rank, code in enumerate(codes) if code]
        complaints = tuple(
            _complain(rank, processes[rank].pid, codes[rank], _last_line(folder / f"err-{rank}"))
            for rank in failed or [rank for rank, code in enumerate(codes) if code is None]
        )
    return Outcome(output=output, code=codes[0], complaints=complaints)


def _start(
    command: Sequence[str], rank: int, size: int, port: int, folder: Path
) -> subprocess.Popen[bytes]:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    environment = {
        "OMP_NUM_THREADS": str(max(1, usable_cores() // size)),
        **os.environ,
        **{name: str(value) for name, value in names.items()},
        "MASTER_ADDR": _HOST,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    with contextlib.ExitStack() as stack:
        out = stack.enter_context((folder / f"out-{rank}").open("wb"))
        err = stack.enter_context((folder / f"err-{rank}").open("wb")) if rank else None
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err
        )


def _watch(processes: Sequence[subprocess.Popen[bytes]], deadline: float) -> None:
    """Wait for all; not much longer than the first one that fails, or than rank 0."""
    is_short = False
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
        codes = [process.poll() for process in processes]
        if any(code is not None and code < 0 for code in codes):
            return
        if not is_short and (codes[0] is not None or any(codes)):
            # Rank 0 has said what there is to say, or soon will.
            deadline, is_short = min(deadline, time.monotonic() + _GRACE), True
        time.sleep(_PAUSE)


def _complain(rank: int, process: int, code: int | None, last_line: str) -> str:
    who = f"rank {rank} (process {process})"
    if code is None:
        return f"{who} did not come to its end in time"
    if code < 0:
        return f"{who} was ended by {signal.Signals(-code).name}"
    return f"{who} ended with code {code}{f': {last_line}' if last_line else ''}"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _last_line(file: Path) -> str:
    if not file.is_file():  # rank 0 speaks for itself
        return ""
    lines = file.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else ""
