"""How fast a run goes and what it waits for."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mllm_npu.batch import Batch


class Throughput:
    """Counts work and time between two log lines, and the time of the whole run.

    Args:
        seconds: wall time spent before a resume.
        cpu_seconds: processor time of this process spent before a resume.
    """

    def __init__(self, *, seconds: float = 0.0, cpu_seconds: float = 0.0) -> None:
        self._run_start = time.perf_counter() - seconds
        self._run_cpu_start = time.process_time() - cpu_seconds
        self._restart()

    @property
    def seconds(self) -> float:
        """Wall time of the whole run, resumed parts included."""
        return time.perf_counter() - self._run_start

    @property
    def cpu_seconds(self) -> float:
        """Processor time of this process over the whole run, resumed parts included."""
        return time.process_time() - self._run_cpu_start

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of a ``with`` block as waiting for data."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._waited += time.perf_counter() - start

    def count(self, batches: Sequence[Batch]) -> None:
        """Count the work of one optimizer step."""
        self._work["steps"] += 1
        for batch in batches:
            self._work["tokens"] += batch.num_tokens
            self._work["targets"] += batch.num_targets
            self._work["samples"] += batch.num_samples
            self._work["tiles"] += batch.tiles.shape[0]

    def work(self) -> dict[str, float]:
        """What this rank did since the last ``restart``: steps, tokens, targets, samples, tiles."""
        return {name: float(value) for name, value in self._work.items()}

    def rates(self, work: dict[str, float]) -> dict[str, float]:
        """Speeds since the last log line, then start counting anew.

        Args:
            work: sums over all ranks of what ``work`` gave.
        """
        elapsed = max(time.perf_counter() - self._start, 1e-9)
        rates = {f"{name}_per_second": value / elapsed for name, value in work.items()}
        rates["data_wait_share"] = self._waited / elapsed
        rates["seconds"] = self.seconds
        rates["cpu_seconds"] = self.cpu_seconds
        self._restart()
        return rates

    def _restart(self) -> None:
        self._start = time.perf_counter()
        self._waited = 0.0
        self._work = {"steps": 0, "tokens": 0, "targets": 0, "samples": 0, "tiles": 0}
