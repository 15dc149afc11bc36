"""Read what the training stages of a run left behind: losses, times, memory."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

METRICS_FILE = "metrics.jsonl"
SUMMARY_FILE = "summary.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One training stage.

    Args:
        name: of its folder.
        curves: (step, value) points by the name of the loss ("loss", "terms/language", ...).
        seconds: wall time, None while it is not finished.
        cpu_seconds: processor time of all threads.
        peak_rss_gib: most memory it held.
        steps: updates done.
    """

    name: str
    curves: Mapping[str, Sequence[tuple[int, float]]]
    seconds: float | None
    cpu_seconds: float | None
    peak_rss_gib: float | None
    steps: int


def read_stages(run: Path) -> list[Stage]:
    """The stages of a run, or the one whose folder is given, in the order of their training."""
    files = [*run.glob(METRICS_FILE), *run.glob(f"*/{METRICS_FILE}")]
    return [_read_stage(file) for file in sorted(files, key=lambda file: file.stat().st_mtime)]


def add_up(stages: Sequence[Stage]) -> dict[str, float]:
    """``train_seconds``, ``train_cpu_seconds`` and ``peak_rss_gib`` of all stages.

    A figure is left out unless every stage has it: a sum of some would look better than it is.
    """
    ways = (
        ("train_seconds", [stage.seconds for stage in stages], sum),
        ("train_cpu_seconds", [stage.cpu_seconds for stage in stages], sum),
        ("peak_rss_gib", [stage.peak_rss_gib for stage in stages], max),
    )
    figures: dict[str, float] = {}
    for name, values, combine in ways:
        known = [value for value in values if value is not None]
        if known and len(known) == len(stages):
            figures[name] = round(combine(known), 2)
    return figures


def _read_stage(file: Path) -> Stage:
    curves: dict[str, list[tuple[int, float]]] = defaultdict(list)
    steps = 0
    for line in file.read_text(encoding="utf-8").splitlines():
        values = _parse(line)
        steps = int(values.get("step", steps))
        for name, value in _losses(values):
            curves[name].append((steps, value))
    summary_file = file.with_name(SUMMARY_FILE)
    summary = _parse(summary_file.read_text(encoding="utf-8")) if summary_file.is_file() else {}
    return Stage(
        name=file.parent.name,
        curves=dict(curves),
        seconds=summary.get("seconds"),
        cpu_seconds=summary.get("cpu_seconds"),
        peak_rss_gib=summary.get("peak_rss_gib"),
        steps=summary.get("steps", steps),
    )


def _parse(text: str) -> dict[str, Any]:
    """A JSON object; an empty one for a line that a crash cut off."""
    try:
        values = json.loads(text)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def _losses(values: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The total and every loss in a dictionary of a log line."""
    found = [("loss", float(values["loss"]))] if "loss" in values else []
    for group, members in values.items():
        if isinstance(members, Mapping) and (group == "terms" or "loss_per_task" in group):
            found.extend((f"{group}/{name}", float(value)) for name, value in members.items())
    return found
