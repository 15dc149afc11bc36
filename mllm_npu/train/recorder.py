"""What a run reports: to trackers, and as a progress bar or plain lines."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from mllm_npu.errors import DataError
from mllm_npu.probe import Measured
from mllm_npu.train.fault_files import dump_fault
from mllm_npu.train.faults import Fault
from mllm_npu.train.trackers.json_lines import METRICS_FILE, JsonLines
from mllm_npu.train.trackers.tracker import FAULT, ROLLBACK, Tracker, flatten

_WORTH_TELLING = 0.05
"""Share of the time spent waiting for data from which it is shown."""
_MOST_TOLD = 6
"""Numbers of a probe in its line; the trackers have all of them."""
_DEEDS = {
    "skip": "The update was left out.",
    "lower": "The update was left out, and the learning rate is lowered.",
    "roll_back": "The update was left out, and the last checkpoint comes back.",
    "stop": "The run ends.",
}


class Recorder:
    """Hands what a run reports to its trackers, and shows how far the run is.

    The main rank alone starts it; on the others it tells of faults and does nothing else.

    Args:
        folder: of the run.
        trackers: take numbers, pictures and events, by any name; None writes JSON lines alone.
        name: what the progress bar calls the run.
        progress: whether to show more than faults; a bar with the time left on a terminal, else one
            line per log interval.
        most_dumps: batches of bad updates that each rank writes to the folder, under ``faults``.
        config: of the run, as YAML, for the trackers that show it.
        console: where to show it.
    """

    def __init__(
        self,
        *,
        folder: str | Path,
        trackers: Mapping[str, Tracker] | None = None,
        name: str = "train",
        progress: bool = True,
        most_dumps: int = 10,
        config: str = "",
        console: Console | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.trackers = {"jsonl": JsonLines(folder=folder)} if trackers is None else dict(trackers)
        self.name = name
        self.progress = progress
        self.most_dumps = most_dumps
        self.config = config
        self._console = console or Console(stderr=True)
        self._bar: _Bar | None = None
        self._is_started = False
        self._step = self._first_step = self._max_steps = 0
        self._begin = 0.0

    @property
    def metrics_path(self) -> Path:
        """The file of JSON lines, where there is a tracker that writes it."""
        return self.folder / METRICS_FILE

    def start(self, step: int, max_steps: int) -> None:
        """Begin or go on after ``step`` updates; what later steps had logged is taken back.

        Raises:
            ConfigError: a tracker does not let the run in.
            DataError: the folder cannot be written; so do the methods below.
        """
        self._step = self._first_step = step
        self._max_steps, self._begin = max_steps, time.perf_counter()
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            for tracker in self.trackers.values():
                tracker.start(step, self.config)
        self._is_started = True
        if self.progress and self._console.is_terminal:
            self._bar = _make_bar(self._console)
            self._bar.add_task(self.name, total=max_steps, completed=step, numbers="")
            self._bar.start()

    def advance(self, step: int) -> None:
        """Move the bar; asks no device."""
        self._step = step
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=step)

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Record one log interval.

        Args:
            step: updates done.
            values: numbers, or dictionaries of numbers.
        """
        if not self._is_started:
            return
        self.advance(step)
        with self._writing():
            for tracker in self.trackers.values():
                tracker.log(step, values)
        numbers, skipped = _tell_numbers(values), _tell_skipped(values)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], numbers=numbers + skipped)
        else:
            self._say(f"{numbers} {self._tell_time_left()}{skipped}")

    def log_probe(self, step: int, measured: Measured) -> None:
        """Record what a probe has found.

        Args:
            step: updates done.
            measured: its values keep their names.
        """
        if not self._is_started:
            return
        with self._writing():
            for tracker in self.trackers.values():
                if measured.values:
                    tracker.log(step, measured.values)
                for name, picture in measured.pictures.items():
                    tracker.log_picture(step, name, picture)
        self._say(_tell_measured(measured))

    def tell_fault(self, fault: Fault, *, rank: int) -> None:
        """Show a bad update and keep its batch, on every rank; record it, where this was started.

        Args:
            fault: its batches are this rank's.
            rank: of this process.
        """
        kept = self._dump(fault, rank)
        where = "" if kept is None else f" Its batch is kept in {kept}."
        self._print(f"{self.name} rank {rank}: {fault} {_DEEDS[fault.action]}{where}")
        if self._is_started:
            with self._writing():
                for tracker in self.trackers.values():
                    tracker.log_event(fault.outcome.step, FAULT, _describe(fault))

    def rewind(self, step: int) -> None:
        """Go back after a rollback: what later steps have logged no longer counts.

        Args:
            step: updates done at the checkpoint that came back.
        """
        if not self._is_started:
            return
        last, self._step = self._step, step
        with self._writing():
            for tracker in self.trackers.values():
                tracker.rewind(step)
                tracker.log_event(step, ROLLBACK, {"from_step": last})
        self.advance(step)
        self._say(f"back from step {last}")

    def close(self) -> None:
        """Flush and close everything; may be called twice."""
        self._is_started = False
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        with self._writing(), ExitStack() as stack:
            for tracker in self.trackers.values():
                stack.callback(tracker.close)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(
                f"Metrics were to be written to {self.folder}: {error}. Make room on its disk, or "
                "choose a folder that can be written; the same command goes on from the last "
                "checkpoint."
            ) from error

    def _dump(self, fault: Fault, rank: int) -> Path | None:
        """Write the batch of a fault, unless this rank has written enough of them."""
        folder = self.folder / "faults"
        if len(list(folder.glob(f"step-*-rank{rank}"))) >= self.most_dumps:
            return None
        return dump_fault(folder, fault, rank=rank)

    def _say(self, text: str) -> None:
        if self.progress:
            self._print(f"{self.name} {self._step}/{self._max_steps} {text}")

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _tell_time_left(self) -> str:
        done = max(1, self._step - self._first_step)
        seconds = (time.perf_counter() - self._begin) / done * (self._max_steps - self._step)
        hours, rest = divmod(round(seconds), 3600)
        if hours:
            return f"{hours} h {rest // 60} min left"
        return f"{rest // 60} min left" if rest >= 600 else f"{rest} s left"


class _Bar(Progress):
    """One line for how far the run is, and below it the numbers of the last log interval."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            yield Text(task.fields["numbers"])


def _make_bar(console: Console) -> _Bar:
    return _Bar(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )


def _tell_numbers(values: Mapping[str, Any]) -> str:
    """The few numbers that are watched while a run goes on."""
    told = [f"loss {values['loss']:.4f}"] if "loss" in values else []
    told += [f"{name} {value:.4f}" for name, value in values.get("terms", {}).items()]
    if "lr" in values:
        told.append(f"lr {values['lr']:.2e}")
    if "tokens_per_second" in values:
        told.append(f"{values['tokens_per_second']:.0f} tokens/s")
    if "mfu" in values:
        told.append(f"mfu {100 * values['mfu']:.0f} %")
    waited = values.get("data_wait_share", 0.0)
    if waited > _WORTH_TELLING:
        told.append(f"data wait {100 * waited:.0f} %")
    faults = {name: count for name, count in values.get("faults", {}).items() if count}
    if faults:
        told.append(f"faults ({_tell_counts(faults)})")
    return " ".join(told)


def _tell_measured(measured: Measured) -> str:
    """The first numbers of what a probe has found, and how many more there are."""
    found = list(flatten(measured.values))
    told = [f"{name} {value:.4g}" for name, value in found[:_MOST_TOLD]]
    if len(found) > _MOST_TOLD:
        told.append(f"and {len(found) - _MOST_TOLD} more")
    return " ".join(told)


def _tell_skipped(values: Mapping[str, Any]) -> str:
    skipped: Mapping[str, int] = values.get("skipped", {})
    return f" · skipped {sum(skipped.values())} ({_tell_counts(skipped)})" if skipped else ""


def _tell_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items())


def _describe(fault: Fault) -> dict[str, Any]:
    """A fault as numbers and texts; what is no number is a text, which JSON has."""
    numbers = {
        "loss": fault.outcome.loss,
        "grad_norm": fault.outcome.grad_norm,
        "limit": fault.limit,
    }
    told = {name: value if math.isfinite(value) else str(value) for name, value in numbers.items()}
    return {"kind": fault.kind, "action": fault.action, **told, "text": str(fault)}
