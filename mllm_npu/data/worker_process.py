"""Worker processes: started by a small server, never as copies of this process.

A copy (fork) of a process that has threads may hang for ever: a lock that another thread held is
held in the copy, where nobody gives it back. A server that has imported what workers need, and
nothing else, starts them as fast, and without the trainer's memory and device.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import connection, forkserver, resource_tracker
from multiprocessing.context import BaseContext
from types import FrameType
from typing import Any, TypeVar

from torch.utils.data import DataLoader, Dataset

from mllm_npu.device.process import tune_allocator

Item = TypeVar("Item")
PRELOADED = ("__main__", "mllm_npu.data.pack_reader")
"""What the server imports."""


def worker_context() -> BaseContext:
    """How worker processes are started."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


def prepare_workers() -> None:
    """Start the server without waiting for it, so that it is ready when workers are needed.

    A stop signal that a whole group of processes gets does not end it: its workers would end too.
    """
    worker_context()
    resource_tracker.ensure_running()  # started below, it would let the signal through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def read_in_workers(
    dataset: Dataset[Item], keys: Iterator[Any], *, num_workers: int
) -> Iterator[Item]:
    """What a data set holds under each of the keys, in their order, read ahead by workers.

    Args:
        dataset: goes to each worker, so it must be a value that can be sent.
        keys: taken as the workers get on.
        num_workers: processes, 1 or more.
    """
    loader = DataLoader(
        dataset,
        sampler=_Once(keys),
        batch_size=None,
        num_workers=num_workers,
        multiprocessing_context=worker_context(),
        worker_init_fn=begin_worker,
    )
    return iter(loader)


def begin_worker(number: int = 0) -> None:
    """What a worker does first.

    Who stops a run stops its trainer, which needs batches until it has ended its step. So a worker
    lets the first signal pass, as its trainer does; the second one acts as always.

    Args:
        number: of the worker; all do the same.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _let_pass)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    end_with_parent()
    tune_allocator()


def end_with_parent() -> None:
    """End this process with the one that asked for it, also when that is killed.

    Its parent in the eyes of the system is the server, which lives as long as any worker does.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


class _Once:
    """An iterator as the sampler that ``DataLoader`` asks for; it is run through once."""

    def __init__(self, keys: Iterator[Any]) -> None:
        self._keys = keys

    def __iter__(self) -> Iterator[Any]:
        return self._keys


def _let_pass(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
