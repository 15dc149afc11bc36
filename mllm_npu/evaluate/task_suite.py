"""Put benchmark tasks to a model, and write figures, records, pages and submissions."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from mllm_npu.distributed.mesh import Mesh
from mllm_npu.errors import ConfigError
from mllm_npu.evaluate.answer_book import AnswerBook, forget_answers
from mllm_npu.evaluate.figure import Figure
from mllm_npu.evaluate.grid_page import picture_grid
from mllm_npu.evaluate.markdown import render_markdown
from mllm_npu.evaluate.page import Page, pick_examples
from mllm_npu.evaluate.report import make_report, write_report, write_text
from mllm_npu.evaluate.runner import Meter, Progress, TaskResult, run_tasks
from mllm_npu.evaluate.task import Task, count_unread
from mllm_npu.inference.engine import Engine
from mllm_npu.inference.picture_files import save_picture

ANSWERS = "answers"
_LEAD = (
    "Every number with its standard error over examples; the interval is a 95 % bootstrap. A reply "
    "is unread where it has no form that an answer can have: it counts as wrong."
)


def evaluate_tasks(
    engine: Engine,
    tasks: Sequence[Task],
    *,
    name: str,
    out: Path,
    model: str,
    mesh: Mesh | None = None,
    limit: int | None = None,
    fresh: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any] | None:
    """Measure a model by benchmarks; what was answered before is not asked again.

    Args:
        engine: answers.
        tasks: with names that differ.
        name: of the model, for the page.
        out: gets report.json, report.html, report.md, records.jsonl and what tasks submit. All
            ranks share it.
        model: see `AnswerBook`.
        mesh: the ranks; the first one scores and writes.
        limit: examples per task, for a quick look; None takes all.
        fresh: forget all answers that are kept in ``out``, and ask everything again.
        progress: called with (done, total).

    Returns:
        The content of report.json; None on other ranks than the first.

    Raises:
        ConfigError: no task, or two of one name.
    """
    mesh = mesh or Mesh.single()
    names = [task.name for task in tasks]
    if not names or len(set(names)) < len(names):
        raise ConfigError(
            f"Tasks {names} were asked for. Give at least one, with names that differ: task=[mmlu]."
        )
    begin = time.perf_counter()
    if fresh and mesh.is_main:
        forget_answers(out / ANSWERS)
    mesh.barrier()
    book = AnswerBook(out / ANSWERS, model=model, rank=mesh.rank)
    mesh.barrier()
    results = run_tasks(tasks, engine, limit=limit, meter=Meter(progress), book=book, mesh=mesh)
    if not mesh.is_main:
        return None
    figures = [figure for result in results for figure in _figures_of(result)]
    report = make_report(
        figures=figures,
        device=engine.device,
        seconds=time.perf_counter() - begin,
        facts={"model": name, "limit": limit, "tasks": [_describe(result) for result in results]},
    )
    _write(out, report, results)
    return report


def _figures_of(result: TaskResult) -> Sequence[Figure]:
    return result.task.figures(result.records)


def _describe(result: TaskResult) -> dict[str, Any]:
    refused = [record for record in result.records if record.refused is not None]
    return {
        "name": result.task.name,
        "title": result.task.title,
        "citation": result.task.citation,
        "num": len(result.records),
        "num_unread": count_unread(result.records),
        "num_refused": len(refused),
        "first_refusal": refused[0].refused if refused else None,
        "num_shots_dropped": result.num_shots_dropped,
        "submissions": sorted(_submissions(result)),
    }


def _submissions(result: TaskResult) -> Mapping[str, str | Image.Image]:
    return result.task.submissions(result.records)


def _write(out: Path, report: Mapping[str, Any], results: Sequence[TaskResult]) -> None:
    page = Page(
        title=f"{report['model']}: {', '.join(result.task.name for result in results)}",
        lead=_LEAD,
        galleries=[grid for grid in map(picture_grid, results) if grid is not None],
        examples=[pick_examples(result) for result in results],
    )
    write_report(out, report, page, results=results)
    write_text(out / "report.md", render_markdown(report, results))
    for result in results:
        for file, content in _submissions(result).items():
            path = out / "submissions" / file
            if isinstance(content, str):
                write_text(path, content)
            else:
                save_picture(content, path)
