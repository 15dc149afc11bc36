"""What a run reports: JSON lines, TensorBoard, and a progress bar or plain lines."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from mllm_npu.errors import DataError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Recorder:
    """Writes ``metrics.jsonl`` and a ``tensorboard`` folder, and shows how far the run is.

    Args:
        folder: folder of the run.
        name: what the progress bar calls the run.
        tensorboard: whether to write TensorBoard events.
        progress: whether to show anything; a bar with the time left on a terminal, else one line
            per log interval.
        console: where to show it.
    """

    def __init__(
        self,
        *,
        folder: str | Path,
        name: str = "train",
        tensorboard: bool = True,
        progress: bool = True,
        console: Console | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.name = name
        self.tensorboard = tensorboard
        self.progress = progress
        self._console = console or Console(stderr=True)
        self._bar: Progress | None = None
        self._writer: SummaryWriter | None = None
        self._first_step = 0
        self._max_steps = 0
        self._start = 0.0

    @property
    def metrics_path(self) -> Path:
        """The file of JSON lines."""
        return self.folder / "metrics.jsonl"

    def start(self, step: int, max_steps: int) -> None:
        """Begin or go on after ``step`` updates; lines of later steps are dropped.

        Raises:
            DataError: the folder cannot be written.
        """
        self._first_step, self._max_steps, self._start = step, max_steps, time.perf_counter()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._truncate(step)
            if self.tensorboard:
                self._writer = _open_tensorboard(self.folder / "tensorboard", step)
        except OSError as error:
            raise DataError(
                f"Metrics were to be written to {self.folder}: {error}. "
                "Choose a folder that can be written."
            ) from error
        if self.progress and self._console.is_terminal:
            self._bar = _make_bar(self._console)
            self._bar.add_task(
                self.name, total=max_steps, completed=step, loss=float("nan"), skipped=""
            )
            self._bar.start()

    def advance(self, step: int) -> None:
        """Move the bar; asks no device."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=step)

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Record one log interval.

        Args:
            step: updates done.
            values: numbers, or dictionaries of numbers; names are joined with ``/`` in TensorBoard.
        """
        try:
            with self.metrics_path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
        except OSError as error:
            raise DataError(
                f"{self.metrics_path} cannot be written: {error}. "
                "Make room on its disk; the same command goes on from the last checkpoint."
            ) from error
        if self._writer is not None:
            for name, value in flatten(values):
                self._writer.add_scalar(name, value, step)
        if self._bar is not None:
            self._bar.update(
                self._bar.task_ids[0],
                completed=step,
                loss=values.get("loss", 0.0),
                skipped=_tell_skipped(values),
            )
        elif self.progress:
            self._console.print(self._line(step, values), highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Flush and close everything; may be called twice."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _line(self, step: int, values: Mapping[str, Any]) -> str:
        done = max(1, step - self._first_step)
        left = (time.perf_counter() - self._start) / done * (self._max_steps - step)
        terms = " ".join(f"{name} {value:.4f}" for name, value in values.get("terms", {}).items())
        return (
            f"{self.name} {step}/{self._max_steps} "
            f"loss {values.get('loss', float('nan')):.4f} {terms} "
            f"lr {values.get('lr', 0.0):.2e} {values.get('tokens_per_second', 0.0):.0f} tokens/s "
            f"{left:.0f} s left{_tell_skipped(values)}"
        )

    def _truncate(self, step: int) -> None:
        if not self.metrics_path.exists():
            return
        lines = self.metrics_path.read_text(encoding="utf-8", errors="replace").splitlines()
        kept = [line for line in lines if _step_of(line) <= step] if step else []
        partial = self.metrics_path.with_suffix(".partial")
        partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        partial.replace(self.metrics_path)


def _tell_skipped(values: Mapping[str, Any]) -> str:
    skipped: Mapping[str, int] = values.get("skipped", {})
    if not skipped:
        return ""
    reasons = ", ".join(f"{reason} {count}" for reason, count in skipped.items())
    return f" · skipped {sum(skipped.values())} ({reasons})"


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Names and numbers of nested dictionaries, ``{"a": {"b": 1}}`` -> ``("a/b", 1)``."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}/")
        else:
            yield prefix + name, float(value)


def _step_of(line: str) -> float:
    try:
        return int(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError, TypeError):
        # A line cut off by a crash belongs to no step.
        return float("inf")


def _make_bar(console: Console) -> Progress:
    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[skipped]}"),
        console=console,
    )


def _open_tensorboard(folder: Path, step: int) -> SummaryWriter:
    from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 takes seconds to import

    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)
