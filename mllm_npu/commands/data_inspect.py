"""Commands that look at the data a run would train on: inspect and stats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from mllm_npu.commands.console import Json, Overrides, bar, console, later

app = typer.Typer()

_INSPECT_EXAMPLES = """
Examples:

- a page and a terminal view: `mllm-npu data inspect experiment=digits/mllm`
- one data set: `mllm-npu data inspect experiment=digits/mllm --source ocr --samples 30 --packs 0`
- other samples: `mllm-npu data inspect experiment=digits/mllm --seed 1 --only-terminal`
- with other settings: `mllm-npu data inspect experiment=digits/mllm dataset.tokens_per_pack=1024`
"""
_STATS_EXAMPLES = """
Examples:

- tables: `mllm-npu data stats experiment=digits/mllm`
- one JSON line: `mllm-npu data stats experiment=digits/mllm --json --all`
"""

Epoch = Annotated[int, typer.Option(min=0, help="Epoch of the plan.")]


@app.command("inspect", epilog=_INSPECT_EXAMPLES)
def inspect_data(
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="HTML page to write.")] = Path("data-inspect.html"),
    packs: Annotated[int, typer.Option(min=0, help="Packs to show.")] = 4,
    samples: Annotated[int, typer.Option(min=0, help="Samples to show.")] = 12,
    epoch: Epoch = 0,
    source: Annotated[str, typer.Option(help="Only samples of this data set.")] = "",
    seed: Annotated[int, typer.Option(help="Which samples and packs; the plan stays.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but the page's name.")] = (
        False
    ),
    only_terminal: Annotated[bool, typer.Option("--only-terminal", help="Write no page.")] = False,
) -> None:
    """Show real samples and packs as the model sees them, as a page and in the terminal.

    Tiles on the pictures, tokens, which of them carry loss, image slots, packs as bars, lengths,
    picture sizes, and what is left out and why. Nothing is trained and no model is loaded.
    """
    wish = later("data.inspect.look").Wish(
        num_samples=samples, num_packs=packs, epoch=epoch, source=source, seed=seed
    )
    config, batches = _build_batches(overrides)
    plan = batches.order.plan
    progress, move = bar("reading samples and packs")
    with progress:
        look = later("data.inspect.look").take_look(plan, batches.reader, wish, progress=move)
    stats = _count(plan, epoch, later("data.inspect.plan_stats").FEW_WINDOWS)
    if not quiet:
        terminal = later("data.inspect.terminal")
        console.print(terminal.show_look(look, width=console.width))
        console.print(terminal.show_stats(stats))
    if only_terminal:
        return
    page = later("data.inspect.page")
    name = config.name if config.stage == "single" else f"{config.name}/{config.stage}"
    tile_size = plan.processor.any_resolution.tile_size
    page.write_page(
        out, page.render_page(look, stats, title=f"Data of {name}", tile_size=tile_size)
    )
    console.print(f"page: {out}", markup=False, soft_wrap=True)


@app.command("stats", epilog=_STATS_EXAMPLES)
def count_data(
    overrides: Overrides = None,
    windows: Annotated[
        int, typer.Option(min=1, help="Windows of the plan to count; some thousand samples each.")
    ] = 4,
    count_all: Annotated[bool, typer.Option("--all", help="Count the whole epoch.")] = False,
    epoch: Epoch = 0,
    as_json: Json = False,
) -> None:
    """Count what a plan holds: samples, tokens, targets, tiles, shares, padding, broken places.

    Counted from indexes and planned lengths; no picture is decoded.
    """
    _, batches = _build_batches(overrides)
    stats = _count(batches.order.plan, epoch, None if count_all else windows)
    if as_json:
        typer.echo(json.dumps(stats.to_json(), ensure_ascii=False))
    else:
        console.print(later("data.inspect.terminal").show_stats(stats))


def _build_batches(overrides: list[str] | None) -> tuple[Any, Any]:
    """The configuration, and the packs it would train on; no file of a run is written."""
    config = later("config").load_config("training", overrides or [])
    if config.stages:
        raise later("errors").ConfigError(
            f"{config.name} is made of the stages {', '.join(config.stages)}, and each has data of "
            f"its own. Give one of them, such as experiment={config.stages[0]}."
        )
    build = later("build")
    build.require_world(config)
    processor = build.build_processor(config)
    # Broken places are shown, not listed a second time in the quarantine of the run.
    unlisted = {"quarantine": None} if config.dataset.get("quarantine") else {}
    batches = build.build_part(config.dataset, processor=processor, **unlisted)
    if not isinstance(batches, later("data.loader").PackedBatches):
        raise later("errors").ConfigError(
            f"dataset._target_ gives a {type(batches).__name__}, which has no plan to look at. "
            "Give mllm_npu.data.loader.PackedBatches."
        )
    return config, batches


def _count(plan: Any, epoch: int, windows: int | None) -> Any:
    progress, move = bar("counting windows")
    with progress:
        return later("data.inspect.plan_stats").count_plan(
            plan, epoch=epoch, windows=windows, progress=move
        )
