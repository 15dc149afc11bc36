"""Commands that measure a run: evaluate, evaluate compare."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from mllm_npu.commands.console import Json, Overrides, Run, bar, console, later
from mllm_npu.commands.ranks import is_main_rank, leaving_together
from mllm_npu.errors import ConfigError

app = typer.Typer()

_EXAMPLES = """
Examples:

- the figures of the world a run was trained on: `mllm-npu evaluate runs/digits`
- benchmarks: `mllm-npu evaluate runs/digits task=[mmlu,mme] data=data/benchmarks`
- one of them otherwise: `mllm-npu evaluate runs/digits task=[mmlu] task.mmlu.shots=0`
- on eight devices: `torchrun --nproc-per-node=8 -m mllm_npu.cli evaluate runs/digits task=[mmlu]`
- two models: `mllm-npu evaluate compare runs/a/evaluation runs/b/evaluation`
"""


@app.command(epilog=_EXAMPLES)
def evaluate(
    run: Run,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report; RUN/evaluation for benchmarks.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Examples per task, for a quick look.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Ask again what was answered before.")
    ] = False,
    device: Annotated[str, typer.Option(help="Where the model runs.")] = "auto",
    as_json: Json = False,
) -> None:
    """Measure a run on held-out data or by benchmarks; writes report.json and report.html.

    An evaluation that was stopped goes on where it was: answers are kept as they come.
    """
    if not overrides:
        report = _evaluate_world(run, limit=limit, device=device)
        page = run / "report.html"
    else:
        folder = out or run / "evaluation"
        with leaving_together():
            report = _evaluate_tasks(
                run, overrides, folder, limit=limit, fresh=fresh, device=device
            )
        page = folder / "report.html"
    if not is_main_rank():
        return
    if as_json:
        typer.echo(json.dumps(report["figures"]))
    else:
        console.print(later("evaluate.table").figures_table(report))
        console.print(f"report: {page}")


def _evaluate_world(run: Path, *, limit: int | None, device: str) -> dict[str, Any]:
    folders = later("model_folder")
    folder = folders.find_model_folder(run)
    world = folders.world_of(folder)
    engine, config = folders.load_engine(folder, device)
    progress, move = bar("evaluating")
    with progress:
        report: dict[str, Any] = later("evaluate.suite").evaluate_run(
            engine,
            world=world,
            run=run,
            options=later("build").build_part(config.generation),
            limit=limit,
            progress=move,
        )
    return report


def _evaluate_tasks(
    run: Path,
    overrides: list[str],
    out: Path,
    *,
    limit: int | None,
    fresh: bool,
    device: str,
) -> dict[str, Any]:
    config = later("config").load_config("evaluation", overrides)
    if not any(node is not None for node in config.task.values()):
        raise ConfigError(f"{' '.join(overrides)} names no task. Give some: task=[mmlu,mme]")
    folders, build = later("model_folder"), later("build")
    mesh = later("distributed.mesh").Mesh.start(later("device.platform").pick_device(device))
    folder = folders.find_model_folder(run)
    engine, described = folders.load_engine(folder, device)
    options = dataclasses.replace(
        build.build_part(described.generation), **later("config").plain(config.generation)
    )
    tasks = build.build_tasks(config, options=options, engine=engine)
    progress, move = bar("evaluating")
    with progress:
        report: dict[str, Any] = later("evaluate.task_suite").evaluate_tasks(
            engine,
            tasks,
            name=run.resolve().name,
            out=out,
            model=later("evaluate.answer_book").fingerprint(folder),
            mesh=mesh,
            limit=limit,
            fresh=fresh,
            progress=move if mesh.is_main else None,
        )
    return report
