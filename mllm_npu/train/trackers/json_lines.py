"""Metrics as JSON lines and pictures as PNG files in the folder of the run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mllm_npu.train.trackers.png import encode_png
from mllm_npu.train.trackers.tracker import FAULT, ROLLBACK, Tracker

METRICS_FILE = "metrics.jsonl"
_EVENTS = {FAULT, ROLLBACK}


class JsonLines(Tracker):
    """Appends to ``metrics.jsonl``; pictures go to ``pictures/step-00000100-NAME.png``.

    One line is one log interval, one measurement, or one event, in the order in which they came.
    No curve has two points for one step: what a resume or a rollback takes back is dropped. The
    events that led to a rollback stay.

    Args:
        folder: of the run.
    """

    def __init__(self, *, folder: str | Path) -> None:
        self.folder = Path(folder)

    @property
    def path(self) -> Path:
        """The file of lines."""
        return self.folder / METRICS_FILE

    def start(self, step: int, config: str = "") -> None:
        """Drop the lines of later steps, all of them at step 0; the config has its own file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = self._read()
        settled = _count_settled(lines, step)
        later = [line for line in lines[settled:] if _step_of(line) <= step]
        kept = [*lines[:settled], *later] if step else []
        if kept != lines:
            self._write(kept)

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Append a line; dictionaries stay what they are."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    def log_picture(self, step: int, name: str, picture_3HW: Tensor) -> None:
        """Write a PNG file."""
        folder = self.folder / "pictures"
        folder.mkdir(exist_ok=True)
        plain_name = re.sub(r"[^\w.-]+", "-", name)
        (folder / f"step-{step:08d}-{plain_name}.png").write_bytes(encode_png(picture_3HW))

    def log_event(self, step: int, name: str, what: Mapping[str, Any]) -> None:
        """Append a line of its own."""
        self.log(step, {name: dict(what)})

    def rewind(self, step: int) -> None:
        """Drop the numbers of later steps; the events stay."""
        lines = self._read()
        self._write(
            [line for line in lines if _step_of(line) <= step or _EVENTS & _parse(line).keys()]
        )

    def close(self) -> None:
        """Every line is written when it comes."""

    def _read(self) -> list[str]:
        if not self.path.exists():
            return []
        return self.path.read_text(encoding="utf-8", errors="replace").splitlines()

    def _write(self, lines: Sequence[str]) -> None:
        partial = self.path.with_suffix(".partial")
        partial.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        partial.replace(self.path)


def _count_settled(lines: Sequence[str], step: int) -> int:
    """How many lines no resume at ``step`` takes back: those up to the last rollback before it."""
    entries = [_parse(line) for line in lines]
    ends = [n + 1 for n, e in enumerate(entries) if ROLLBACK in e and e.get("step", step) < step]
    return max(ends, default=0)


def _step_of(line: str) -> float:
    step = _parse(line).get("step")
    # A line cut off by a crash belongs to no step.
    return step if isinstance(step, int) else float("inf")


def _parse(line: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}
