"""Write what an evaluation found: report.json for machines, report.html for people."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mllm_npu.errors import DataError
from mllm_npu.evaluate.figure import Figure, format_value
from mllm_npu.evaluate.knob import RULE
from mllm_npu.evaluate.machine import describe_machine, list_versions
from mllm_npu.evaluate.page import Page
from mllm_npu.evaluate.plots import loss_curves
from mllm_npu.evaluate.runner import TaskResult
from mllm_npu.evaluate.training_log import Stage
from mllm_npu.processing.conversation import Text

TEMPLATE = Path(__file__).with_name("report.html")


def make_report(
    *,
    world: str,
    figures: Sequence[Figure],
    choices: Mapping[str, Any],
    stages: Sequence[Stage],
    device: torch.device,
    seconds: float,
) -> dict[str, Any]:
    """The content of report.json; every figure is a key of its own, and again under "figures".

    Args:
        world: name of the data set.
        figures: everything that was measured.
        choices: settings that were chosen, with all values tried.
        stages: of the training.
        device: where the model ran.
        seconds: wall time of the evaluation.
    """
    values = {figure.name: figure.value for figure in figures}
    return {
        **values,
        "world": world,
        "figures": values,
        "details": [figure.to_json() for figure in figures],
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
        "machine": describe_machine(device),
        "versions": list_versions(),
        "evaluate_seconds": round(seconds, 1),
        "made": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }


def write_report(
    run: Path,
    report: Mapping[str, Any],
    page: Page,
    *,
    stages: Sequence[Stage],
    results: Sequence[TaskResult],
) -> None:
    """Write report.json, report.html and records.jsonl (each question and reply) into ``run``."""
    _write(run / "report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    _write(run / "report.html", render_page(report, page, stages))
    _write(run / "records.jsonl", "".join(_record_lines(results)))


def render_page(report: Mapping[str, Any], page: Page, stages: Sequence[Stage]) -> str:
    """The page as one self-contained HTML text."""
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 only a report needs it
    from markupsafe import Markup  # noqa: PLC0415 only a report needs it

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = format_value
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    # Safe: drawn by matplotlib, which escapes the names in it.
    plots = {stage.name: Markup(loss_curves(stage.name, stage.curves)) for stage in stages}
    return template.render(report=report, page=page, plots=plots, rule=RULE)


def _record_lines(results: Sequence[TaskResult]) -> list[str]:
    lines = []
    for result in results:
        for record in result.records:
            turns = record.example.conversation.turns
            line = {
                "task": result.task.name,
                "example": record.example.name,
                "question": [p.text for turn in turns for p in turn.parts if isinstance(p, Text)],
                "answer": record.example.answer,
                "reply": record.reply.text,
                "num_pictures": len(record.reply.pictures),
                "understood": record.understood,
                "score": record.score,
            }
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return lines


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        if partial.is_file():
            partial.unlink()
        raise DataError(
            f"The report {path} cannot be written: {error}. Make its folder writable, with room."
        ) from error
