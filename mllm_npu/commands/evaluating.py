"""Commands that measure a run: evaluate, evaluate compare."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from mllm_npu.commands.console import Json, Overrides, Run, bar, console, later
from mllm_npu.commands.ranks import leaving_together
from mllm_npu.errors import ConfigError
from mllm_npu.shipped import results_folder

EXIT_UNASKED = 1

_PATIENCE_SECONDS = 7 * 24 * 3600.0
"""Ranks wait for the slowest one, and for the first one's judge; torchrun ends those that are left
where one has died."""

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
        bool, typer.Option("--fresh", help="Forget the answers kept in the folder; ask all again.")
    ] = False,
    device: Annotated[str, typer.Option(help="Where the model runs.")] = "auto",
    as_json: Json = False,
) -> None:
    """Measure a run on held-out data or by benchmarks; writes report.json and report.html.

    An evaluation that was stopped goes on where it was: answers are kept as they come. Exit code 1
    where every question of a task was refused.
    """
    if overrides:
        folder = out or results_folder(run) / "evaluation"
        with leaving_together():
            report = _evaluate_tasks(
                run, overrides, folder, limit=limit, fresh=fresh, device=device
            )
    else:
        _check_alone(out, fresh=fresh)
        folder = results_folder(run)
        report = _evaluate_world(run, limit=limit, device=device)
    if report is None:
        return
    table = later("evaluate.table")
    if as_json:
        typer.echo(json.dumps(report["figures"]))
    else:
        console.print(table.figures_table(report))
        for note in table.report_notes(report):
            console.print(note, markup=False, soft_wrap=True)
        console.print(f"report: {folder / 'report.html'}", markup=False, soft_wrap=True)
    if table.unasked_tasks(report):
        raise typer.Exit(EXIT_UNASKED)


def _check_alone(out: Path | None, *, fresh: bool) -> None:
    """Refuse what only benchmarks have: a place of their own, answers that are kept, ranks."""
    for name, given in (("--out", out is not None), ("--fresh", fresh)):
        if given:
            raise ConfigError(
                f"{name} was given without a task. Name some, task=[mmlu,mme], or leave it out: "
                "the data set a run was trained on is measured anew each time, into its folder."
            )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "Several processes were started without a task. Start one, or name tasks: "
            "task=[mmlu,mme]"
        )


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
            run=results_folder(run),
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
) -> dict[str, Any] | None:
    plain, folders, build = later("config").plain, later("model_folder"), later("build")
    config = later("config").load_config("evaluation", overrides)
    if not any(node is not None for node in config.task.values()):
        raise ConfigError(f"{' '.join(overrides)} names no task. Give some: task=[mmlu,mme]")
    mesh = later("distributed.mesh").Mesh.start(
        later("device.platform").pick_device(device), timeout_seconds=_PATIENCE_SECONDS
    )
    folder = folders.find_model_folder(run)
    engine, described = folders.load_engine(folder, device)
    wished = {key: value for key, value in plain(config.generation).items() if value is not None}
    options = build.build_options({**plain(described.generation), **wished})
    files = later("evaluate.answer_book").fingerprint(folders.list_model_files(folder, described))
    progress, move = bar("evaluating")
    with progress:
        report: dict[str, Any] | None = later("evaluate.task_suite").evaluate_tasks(
            engine,
            build.build_tasks(config, options=options, engine=engine),
            name=run.resolve().name,
            out=out,
            model=f"{files}-{engine.device.type}",
            mesh=mesh,
            limit=limit,
            fresh=fresh,
            progress=move if mesh.is_main else None,
        )
    return report
