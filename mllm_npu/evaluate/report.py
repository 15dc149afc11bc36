"""Write what an evaluation found: report.json for machines, report.html for people."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mllm_npu.errors import DataError
from mllm_npu.evaluate.figure import Figure
from mllm_npu.evaluate.figure_tree import figure_tree
from mllm_npu.evaluate.knob import RULE
from mllm_npu.evaluate.machine import describe_machine, list_versions
from mllm_npu.evaluate.page import Page
from mllm_npu.evaluate.picture_shelf import PictureShelf
from mllm_npu.evaluate.plots import loss_curves
from mllm_npu.evaluate.record_lines import record_lines
from mllm_npu.evaluate.runner import TaskResult
from mllm_npu.evaluate.template import fill_template
from mllm_npu.evaluate.training_log import Stage

RECORDS = "records.jsonl"
PICTURES = "pictures"
"""Beside the records: small copies of what was read, drawn and wanted."""


def make_report(
    *, figures: Sequence[Figure], device: torch.device, seconds: float, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """The content of report.json; every figure is a key of its own, and again under "figures".

    Args:
        figures: everything that was measured.
        device: where the model ran.
        seconds: wall time of the evaluation.
        facts: what else is to be known of what was measured.
    """
    values = {figure.name: figure.value for figure in figures}
    return {
        **values,
        "figures": values,
        "details": [figure.to_json() for figure in figures],
        **facts,
        "machine": describe_machine(device),
        "versions": list_versions(),
        "evaluate_seconds": round(seconds, 1),
        "made": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }


def world_facts(world: str, choices: Mapping[str, Any], stages: Sequence[Stage]) -> dict[str, Any]:
    """What is to be known of a run on a world that was made on this machine.

    Args:
        world: name of the data set.
        choices: settings that were chosen, with all values tried.
        stages: of the training.
    """
    return {
        "world": world,
        "choices": dict(choices),
        "stages": [
            {
                "name": stage.name,
                "steps": stage.steps,
                "seconds": stage.seconds,
                "cpu_seconds": stage.cpu_seconds,
                "peak_rss_gib": stage.peak_rss_gib,
            }
            for stage in stages
        ],
    }


def write_report(
    run: Path,
    report: Mapping[str, Any],
    page: Page,
    *,
    results: Sequence[TaskResult],
    stages: Sequence[Stage] = (),
) -> None:
    """Write what was found into a folder.

    Args:
        run: gets report.json, report.html, records.jsonl (each question and reply) and small copies
            of pictures.
        report: content of report.json.
        page: what else the page shows.
        results: of the tasks.
        stages: of the training.

    Raises:
        DataError: it cannot be written.
    """
    write_text(run / "report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    write_text(run / "report.html", render_page(report, page, stages))
    shelf = PictureShelf(run / PICTURES)
    write_text(run / RECORDS, "".join(record_lines(results, shelf)))
    shelf.drop_others()


def render_page(report: Mapping[str, Any], page: Page, stages: Sequence[Stage] = ()) -> str:
    """The page as one self-contained HTML text."""
    from markupsafe import Markup  # noqa: PLC0415 only a report needs it

    # Safe: drawn by matplotlib, which escapes the names in it.
    plots = {stage.name: Markup(loss_curves(stage.name, stage.curves)) for stage in stages}
    counts = ("num_unread", "num_refused", "num_shots_dropped")
    return fill_template(
        "report.html",
        report=report,
        page=page,
        plots=plots,
        rule=RULE,
        branches=[node for node in figure_tree(report["details"]) if node.children],
        notes=[task for task in report.get("tasks", ()) if any(task[key] for key in counts)],
    )


def write_text(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all.

    Raises:
        DataError: it cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Half a surrogate pair, which JSON of a benchmark may hold, is no text for a file.
        partial.write_text(text, encoding="utf-8", errors="replace")
        partial.replace(path)
    except OSError as error:
        if partial.is_file():
            partial.unlink()
        raise DataError(
            f"The report {path} cannot be written: {error}. Make its folder writable, with room."
        ) from error
