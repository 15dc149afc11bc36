"""Ranks that are examined together, some of which die, hang or compute something else."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import torch

from mllm_npu.device.doctor import burn_in
from mllm_npu.device.doctor.check import Check
from mllm_npu.distributed import links
from mllm_npu.distributed.joint_examination import JointExamination
from mllm_npu.distributed.mesh import Mesh
from mllm_npu.distributed.roll_call import RollCall

CPU = torch.device("cpu")
LARGE = 1 << 16


def try_links(folder: Path, *, wrong: str | None = None) -> list[dict[str, Any]]:
    """What each rank saw; rank 1 puts something else into one exchange."""
    mesh = Mesh.start(CPU, timeout_seconds=30)
    if mesh.rank == 1:
        links._EXCHANGES = tuple(
            (name, _spoilt(make) if name == wrong else make, share)
            for name, make, share in links._EXCHANGES
        )
    steps: list[tuple[int, int]] = []
    found = links.try_links(
        mesh, CPU, large_bytes=LARGE, progress=lambda done, total: steps.append((done, total))
    )
    assert steps == [(number, 6) for number in range(7)]
    return [dataclasses.asdict(link) for link in found]


def _spoilt(make: Any) -> Any:
    def make_other(place: Any) -> Any:
        return make(dataclasses.replace(place, rank=0))

    return make_other


def call_roll(folder: Path, *, absent: int | None, timeout: float) -> tuple[int, ...]:
    """Ranks that this one misses."""
    rank = int(os.environ["RANK"])
    if rank == absent:
        time.sleep(timeout + 1.0)
        return ()
    return RollCall(rank=rank, world_size=3, timeout_seconds=timeout).missing


def examine(
    folder: Path, *, timeout: float, event: str = "none", burn_in_seconds: float | None = None
) -> tuple[str, list[dict[str, Any]]]:
    """How this rank ended and its rows; rank 1 does what the event says."""
    rank = int(os.environ["RANK"])
    if rank == 1 and event == "never comes":
        time.sleep(timeout + 1.0)
        return "never came", []
    if rank == 1 and event in ("dies", "hangs"):
        _strike(event)
    if rank == 1 and event == "computes something else":
        play = burn_in.Trial.play_round
        burn_in.Trial.play_round = lambda trial: (*play(trial)[:-1], 1.5)  # type: ignore
    given_up: list[Any] = []

    def give_up(rows: Any) -> None:
        (folder / f"gave-up-{rank}").write_text(repr(rows))
        os._exit(7)

    rows = JointExamination(
        device=CPU,
        look=lambda: (Check(name="disk", found=f"seen by rank {rank}"),),
        timeout_seconds=timeout,
        burn_in_seconds=burn_in_seconds,
        give_up=give_up,
    ).run()
    if any(row.state == "bad" for row in rows):
        (folder / f"rows-{rank}").write_text(repr(rows))
        os._exit(5)
    return "came to the end", [dataclasses.asdict(row) for row in rows] + given_up


def _strike(event: str) -> None:
    """Die or hang in the second exchange."""
    name, _, share = links._EXCHANGES[1]

    def strike(place: Any) -> Any:
        if event == "dies":
            os._exit(9)
        time.sleep(100)

    rest = links._EXCHANGES[2:]
    links._EXCHANGES = (links._EXCHANGES[0], (name, strike, share), *rest)
