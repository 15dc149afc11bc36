"""Find out which ranks are there before any of them waits for another one."""

from __future__ import annotations

import os
import time
from datetime import timedelta

import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

_PAUSE = 0.05


class RollCall:
    """Every rank writes its name into the store all ranks meet at, and reads the others'.

    Args:
        rank: of this process.
        world_size: number of processes.
        timeout_seconds: how long to wait for the last one.

    Attributes:
        missing: ranks that have not answered in time.

    Raises:
        RuntimeError: the store cannot be reached.
        ValueError: no launcher has said where it is.
    """

    def __init__(self, *, rank: int, world_size: int, timeout_seconds: float) -> None:
        limit = timedelta(seconds=timeout_seconds)
        # Held for the life of this object: on a machine without an agent rank 0 is the store.
        self._root, _, _ = next(rendezvous("env://", rank, world_size, timeout=limit))
        restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.PrefixStore(f"roll/{restarts}", self._root)
        store.set(str(rank), os.uname().nodename)
        self.missing = _wait(store, world_size, timeout_seconds)


def _wait(store: dist.Store, world_size: int, timeout_seconds: float) -> tuple[int, ...]:
    deadline = time.monotonic() + timeout_seconds
    missing = list(range(world_size))
    while True:
        missing = [rank for rank in missing if not store.check([str(rank)])]
        if not missing or time.monotonic() > deadline:
            return tuple(missing)
        time.sleep(_PAUSE)
