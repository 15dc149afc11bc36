"""Commands that make and measure a run: train, evaluate."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from mllm_npu.commands.console import Json, Overrides, Run, bar, console, later
from mllm_npu.commands.ranks import leaving_together, say

app = typer.Typer()


@app.command(
    epilog="Examples: `mllm-npu train experiment=digits` · "
    "`mllm-npu train experiment=digits/mllm models/language_model=qwen3_tiny name=qwen`"
)
def train(
    overrides: Overrides = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget what the run folder holds.")
    ] = False,
) -> None:
    """Train an experiment: every stage of it, each from where it stopped.

    On several devices: `torchrun --nproc-per-node=8 -m mllm_npu.cli train parallel=fsdp2 ...`
    """
    stages = later("train.stages")
    with leaving_together():
        *_, last = stages.train_experiment(overrides or [], fresh=fresh, say=say)
        if stages.is_finished(last):
            say(f"done: {last}")


@app.command(epilog="Example: `mllm-npu evaluate runs/digits`")
def evaluate(
    run: Run,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Examples per task, for a quick look.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure a run on held-out data; writes report.json and report.html into it."""
    folders = later("model_folder")
    folder = folders.find_model_folder(run)
    world = folders.world_of(folder)
    engine, config = folders.load_engine(folder)
    progress, move = bar("evaluating")
    with progress:
        report = later("evaluate.suite").evaluate_run(
            engine,
            world=world,
            run=run,
            options=later("build").build_part(config.generation),
            limit=limit,
            progress=move,
        )
    if as_json:
        typer.echo(json.dumps(report["figures"]))
    else:
        console.print(later("evaluate.table").figures_table(report))
        console.print(f"report: {run / 'report.html'}")
