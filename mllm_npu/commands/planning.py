"""Command that looks ahead at a run: plan."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from mllm_npu.commands.console import Json, Overrides, bar, console, later

EXIT_TOO_LARGE = 1

app = typer.Typer()

_EXAMPLES = """
Examples:

- SEED-X on 64 devices: `mllm-npu plan experiment=seedx/pretrain cluster=910b3_64`
- other settings: `mllm-npu plan experiment=seedx/pretrain cluster=h100_64 parallel=hsdp
  parallel.replicas=8 parallel.recompute=full train.accumulate=4`
- parts instead of an experiment: `mllm-npu plan models=seedx_llama2_13b_qwenvl_vit processor=seedx
  dataset=pretrain_data parallel=published cluster=910b3_64`
- the best way to spread it: `mllm-npu plan experiment=seedx/sft cluster.num_nodes=16 --search`
- this machine: `mllm-npu plan experiment=digits/mllm cluster=cpu_here`
"""


@app.command(epilog=_EXAMPLES)
def plan(
    overrides: Overrides = None,
    search: Annotated[
        bool, typer.Option("--search", help="Try other ways to spread the run; minutes.")
    ] = False,
    goodput: Annotated[
        bool, typer.Option("--goodput", help="Simulate thousands of ranks that wait and fail.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for plan.json and a page, plan.html.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Memory, time and cost of a run before it is launched, on any cluster, without one.

    Takes what `mllm-npu train` takes, and `cluster=...`. Weights and data need not be there. Exit
    code 1 where the run does not fit.
    """
    module = later("plan.plan")
    progress = one_bar()
    with progress:
        made = module.make_plan(
            overrides or [],
            with_search=search,
            with_fleet=goodput,
            bars=lambda label: follow(progress, label),
        )
    values = made.as_values()
    if out is not None:
        page = later("plan.page").write_page(made, out)
        console.print(f"page: {page}", markup=False, soft_wrap=True)
    if as_json:
        typer.echo(json.dumps(values))
    else:
        later("plan.report").show(made, Console(highlight=False))
    if not made.outcome.fit.fits:
        raise typer.Exit(EXIT_TOO_LARGE)


def one_bar() -> Progress:
    """The bars of a plan: the dry run first, whose length is not known."""
    progress, _ = bar("dry run")
    return progress


def follow(progress: Progress, label: str) -> Callable[[int, int], object]:
    """What moves a new bar with a label, in place of the one before it."""
    for task in progress.task_ids:
        progress.remove_task(task)
    task = progress.add_task(label, total=None)
    return lambda done, total: progress.update(task, completed=done, total=total)
