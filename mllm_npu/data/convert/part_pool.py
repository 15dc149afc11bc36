"""Part pool: convert parts in this process or in several, and add up how far they are."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mllm_npu.data.convert.formats import format_called
from mllm_npu.data.convert.part_writer import PartReport, write_part
from mllm_npu.data.convert.source_format import Options, Part
from mllm_npu.data.worker_process import end_with_parent
from mllm_npu.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A part to convert.

    Args:
        format_name: how to read it.
        part: what to convert.
        number: of the part among all.
        options: what the user chose.
        out: gets the shards.
    """

    format_name: str
    part: Part
    number: int
    options: Options
    out: Path


class Meter:
    """Adds up how far the parts are; a slot of shared memory each, so that nobody waits.

    Rows are counted where their number is known beforehand, megabytes elsewhere.

    Args:
        parts: all of the source.
        missing: numbers of those that are to be converted.
        progress: told how much is done, and how much there is.
    """

    def __init__(
        self,
        *,
        parts: Sequence[Part],
        missing: Sequence[int],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        # The last slot tells the workers to stop.
        self.slots: Any = multiprocessing.get_context("spawn").RawArray("q", len(parts) + 1)
        self.progress = progress
        self.in_rows = all(part.num_rows for part in parts)
        self.sizes = [p.num_rows if self.in_rows else p.num_bytes for p in parts]
        for number in set(range(len(parts))) - set(missing):
            self.slots[number] = self.sizes[number]

    def move(self, number: int, rows: int, num_bytes: int) -> None:
        """Note that so much of a part has been seen."""
        self.slots[number] = min(rows if self.in_rows else num_bytes, self.sizes[number])

    def finish(self, number: int) -> None:
        """Note that a part is done, and show it."""
        self.slots[number] = self.sizes[number]
        self.show()

    def show(self) -> None:
        """Tell the progress how far all parts are together."""
        if self.progress is not None:
            unit = 1 if self.in_rows else 1_000_000
            done, total = sum(self.slots[: len(self.sizes)]), sum(self.sizes)
            self.progress(done // unit, max(1, -(-total // unit)))


def run_jobs(
    jobs: Sequence[Job], *, workers: int, meter: Meter, note: Callable[[PartReport], None]
) -> None:
    """Convert parts.

    Args:
        jobs: one for each part.
        workers: processes; 1 works in this one.
        meter: adds up how far they are.
        note: told of each part that is done, in this process.

    Raises:
        DataError: if the source or the output fails, or a process is ended from outside.
    """
    if workers > 1 and len(jobs) > 1:
        _run_apart(jobs, min(workers, len(jobs)), meter, note)
        return
    for job in jobs:

        def moved(rows: int, num_bytes: int, number: int = job.number) -> None:
            meter.move(number, rows, num_bytes)
            if rows % 50 == 0:
                meter.show()

        note(_write(job, moved))
        meter.finish(job.number)


def _write(job: Job, moved: Callable[[int, int], None]) -> PartReport:
    return write_part(
        source_format=format_called(job.format_name),
        part=job.part,
        number=job.number,
        options=job.options,
        out=job.out,
        moved=moved,
    )


def _run_apart(
    jobs: Sequence[Job], workers: int, meter: Meter, note: Callable[[PartReport], None]
) -> None:
    """Give the jobs to processes; those end with this one, however it ends."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    pool = ProcessPoolExecutor(
        workers,
        mp_context=context,
        initializer=_begin_worker,
        initargs=(meter.slots, meter.in_rows),
    )
    waiting: set[Future[PartReport]] = set()
    try:
        waiting = {pool.submit(_work, job) for job in jobs}
        while waiting:
            done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
            for future in done:
                report = future.result()
                note(report)
                meter.finish(report.number)
            meter.show()
    except BrokenProcessPool as error:
        raise DataError(
            "A process of the conversion was ended from outside, perhaps for lack of memory. "
            "Use fewer --workers and run the command again; it goes on."
        ) from error
    finally:
        meter.slots[len(meter.sizes)] = 1
        pool.shutdown(cancel_futures=True)


_SLOTS: list[Any] = []


def _begin_worker(slots: Any, in_rows: bool) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    _SLOTS[:] = [slots, in_rows]
    end_with_parent()


def _work(job: Job) -> PartReport:
    slots, in_rows = _SLOTS
    size = job.part.num_rows if in_rows else job.part.num_bytes

    def moved(rows: int, num_bytes: int) -> None:
        if slots[len(slots) - 1]:
            raise KeyboardInterrupt
        slots[job.number] = min(rows if in_rows else num_bytes, size)

    return _write(job, moved)
