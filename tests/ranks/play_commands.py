"""Commands as several ranks give them, and what happens to a rank while they run."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import torch

from mllm_npu.commands.ranks import leaving_together
from mllm_npu.distributed.mesh import Mesh
from mllm_npu.errors import TrainingError


def leave_late(folder: Path, *, fails: int | None) -> tuple[float, float]:
    """Leave one after the other; when this rank wanted to, and when it could.

    Args:
        folder: unused.
        fails: rank that fails instead.
    """
    with leaving_together():
        mesh = Mesh.start(torch.device("cpu"), timeout_seconds=30)
        if mesh.rank == fails:
            raise TrainingError(f"rank {fails} was told to fail")
        time.sleep(0.3 * mesh.rank)
        begin = time.monotonic()
    return begin, time.monotonic()


def command(folder: Path, *, typed: list[list[str]]) -> list[int]:
    """Give commands one after the other; their exit codes."""
    from mllm_npu.cli import main

    return [main(words) for words in typed]


def train_until(
    folder: Path, *, typed: list[str], rank: int, step: int, number: signal.Signals
) -> int:
    """Train, and send a rank a signal behind an update; the exit code."""
    from mllm_npu.cli import main
    from mllm_npu.train.recorder import Recorder

    advance = Recorder.advance

    def send(recorder: Recorder, done: int) -> None:
        advance(recorder, done)
        if done == step and os.environ["RANK"] == str(rank):
            os.kill(os.getpid(), number)

    Recorder.advance = send  # type: ignore[method-assign]
    return main(["train", *typed])


def train_in_little_room(folder: Path, *, typed: list[str], room_gib: float) -> int:
    """Train in one process whose address space ends so far above what it holds when it begins."""
    from mllm_npu.cli import main
    from mllm_npu.train.memory_fit import MemoryFit

    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        os.environ.pop(name)
    try_packs = MemoryFit.try_packs

    def close_the_room(fit: MemoryFit, *arguments: Any) -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * os.sysconf("SC_PAGE_SIZE") + int(room_gib * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        return try_packs(fit, *arguments)

    MemoryFit.try_packs = close_the_room  # type: ignore[method-assign]
    return main(["train", *typed])
