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
from mllm_npu.evaluate.record_lines import record_lines
from mllm_npu.evaluate.runner import TaskResult
from mllm_npu.evaluate.training_log import Stage

TEMPLATE = Path(__file__).with_name("report.html")


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
    """Write report.json, report.html and records.jsonl (each question and reply) into ``run``."""
    write_text(run / "report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    write_text(run / "report.html", render_page(report, page, stages))
    write_text(run / "records.jsonl", "".join(record_lines(results)))


def render_page(report: Mapping[str, Any], page: Page, stages: Sequence[Stage] = ()) -> str:
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
    with_parts = {each["name"].partition("/")[0] for each in report["details"] if each["level"]}
    return template.render(report=report, page=page, plots=plots, rule=RULE, with_parts=with_parts)


def write_text(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all.

    Raises:
        DataError: it cannot be written.
    """
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
