"""Trace what a few steps of a run spend their time on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from rich.console import Console
from torch import profiler

from mllm_npu.errors import ConfigError, DataError

_MOST_OPERATIONS = 30


class Profile:
    """Writes ``rank0.trace.json.gz``, for Perfetto, and a table ``rank0.operations.txt``.

    A context around a loop that calls ``step`` after every update. It waits, warms up, records, and
    from then on does nothing; on a rank that is not asked for it never does anything.

    Args:
        folder: where the files go.
        rank: of this process.
        ranks: that are recorded; none switches it off.
        wait: steps at first that are left alone.
        warmup: steps behind them in which the profiler runs and nothing is kept.
        active: steps behind those that are recorded.
        record_shapes: whether operations are told with the shapes of their inputs.
        with_stack: whether operations are told with the lines of Python they come from; slow.
        console: where to say that it is done.

    Raises:
        ConfigError: numbers of steps that make no sense.
    """

    def __init__(
        self,
        *,
        folder: str | Path,
        rank: int = 0,
        ranks: Sequence[int] = (0,),
        wait: int = 2,
        warmup: int = 1,
        active: int = 3,
        record_shapes: bool = False,
        with_stack: bool = False,
        console: Console | None = None,
    ) -> None:
        if wait < 0 or min(warmup, active) < 1:
            raise ConfigError(
                f"A profile was asked for with wait={wait}, warmup={warmup}, active={active}. Use "
                "a wait from 0, and the others from 1."
            )
        self.folder = Path(folder)
        self.rank = rank
        self.is_enabled = rank in ranks
        self.wait = wait
        self.warmup = warmup
        self.active = active
        self.record_shapes = record_shapes
        self.with_stack = with_stack
        self._console = console or Console(stderr=True)
        self._profiler: profiler.profile | None = None
        self._open = ExitStack()
        self._steps = 0
        self._is_written = False

    @property
    def is_running(self) -> bool:
        """Whether there are steps to come that it waits for or records."""
        return self._profiler is not None

    @property
    def trace_path(self) -> Path:
        """The trace of this rank."""
        return self.folder / f"rank{self.rank}.trace.json.gz"

    @property
    def table_path(self) -> Path:
        """The costliest operations of this rank."""
        return self.folder / f"rank{self.rank}.operations.txt"

    def __enter__(self) -> Self:
        if self.is_enabled:
            self._profiler = profiler.profile(
                activities=_activities(),
                schedule=profiler.schedule(
                    wait=self.wait, warmup=self.warmup, active=self.active, repeat=1
                ),
                on_trace_ready=self._write,
                record_shapes=self.record_shapes,
                with_stack=self.with_stack,
            )
            self._open.enter_context(self._profiler)
        return self

    def step(self) -> None:
        """One update is done.

        Raises:
            DataError: the trace cannot be written.
        """
        if self._profiler is None:
            return
        self._steps += 1
        self._profiler.step()
        if self._is_written:
            self._close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._profiler is None:
            return
        self._close()
        if not self._is_written:
            self._say(
                f"profile: nothing was recorded, because the run had {self._steps} steps and "
                f"recording begins behind {self.wait + self.warmup}"
            )

    def _close(self) -> None:
        self._profiler = None
        self._open.close()

    def _write(self, done: profiler.profile) -> None:
        recorded = self._steps - self.wait - self.warmup
        if recorded < 1:
            return
        self._is_written = True
        table = done.key_averages().table(sort_by=_costs(), row_limit=_MOST_OPERATIONS)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.table_path.write_text(table + "\n", encoding="utf-8")
            done.export_chrome_trace(str(self.trace_path))
        except OSError as error:
            raise DataError(
                f"A profile was to be written to {self.folder}: {error}. Make room on its disk, or "
                "set profile=false."
            ) from error
        self._say(
            f"profile: {recorded} steps are in {self.trace_path} (open it in ui.perfetto.dev), "
            f"their costliest operations in {self.table_path}"
        )

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def _activities() -> set[profiler.ProfilerActivity]:
    """The host's and, where there is one, the accelerator's."""
    if not torch.accelerator.is_available():
        return {profiler.ProfilerActivity.CPU}
    return set(profiler.supported_activities())  # type: ignore[no-untyped-call]


def _costs() -> str:
    """By what operations are sorted: time of their own on the device that does the work."""
    return "self_cpu_time_total" if len(_activities()) == 1 else "self_device_time_total"
