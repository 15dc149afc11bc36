"""Ranks that hang, die, fail or leave while the others train or wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tiny_training import make_trainer

from mllm_npu.distributed.mesh import Mesh
from mllm_npu.distributed.watchdog import Watchdog
from mllm_npu.errors import DataError

CPU = torch.device("cpu")
TIMEOUT = 3.0
BAD_STEP = 3


def train_until(folder: Path, *, kind: str, event: str, culprit: int = 1) -> bool:
    """Train until one rank does what it should not, in its third step."""
    parallel = {"kind": kind, "timeout_seconds": TIMEOUT}
    trainer = make_trainer(
        folder,
        parallel=parallel,
        batches={"kinds": ("both",)},
        packs_per_step=6,
        max_steps=1000,
    )
    if trainer.mesh.rank == culprit:
        act = {"sleeps": _sleep, "fails": _fail, "errs": _err}.get(event)
        if act is not None:
            _watch_calls(trainer, act)
    return trainer.run()


def _watch_calls(trainer: Any, act: Callable[[], None]) -> None:
    forward = trainer.objective.model.forward

    def call(*args: Any, **options: Any) -> Any:
        if trainer.mesh.progress.step == BAD_STEP:
            act()
        return forward(*args, **options)

    trainer.objective.model.forward = call


def _sleep() -> None:
    time.sleep(100)


def _fail() -> None:
    raise DataError("shard-7.tar: sample 12 cannot be read. Copy it again.")


def _err() -> None:
    raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def leave_early(folder: Path) -> dict[str, Any]:
    """Rank 1 comes to its end; the others go on for more than twice the timeout."""
    mesh = Mesh.start(CPU, timeout_seconds=60.0)
    mesh.timeout_seconds = 1.0  # of the watchdog alone: processes that meet may take longer
    begin = time.monotonic()
    with Watchdog.of(mesh, folder=folder / "hangs") as watchdog:
        for step in range(0 if mesh.rank == 1 else 30):
            mesh.progress.note("work of its own", step=step)
            time.sleep(0.1)
        verdict = watchdog.verdict
    # The barrier behind this function has the same timeout.
    time.sleep(max(0.0, begin + 3.5 - time.monotonic()))
    return {"verdict": verdict, "reports": [path.name for path in folder.glob("hangs/*")]}
