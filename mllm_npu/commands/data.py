"""Commands that make and index data sets."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from mllm_npu.commands import data_convert, data_inspect
from mllm_npu.commands.console import Json, bar, console, later

_INDEX_EXAMPLES = (
    "Examples: `mllm-npu data index 'shards/*.tar'` · "
    "`mllm-npu data index 'shards/{0000..0127}.tar' --workers 8` · "
    "`mllm-npu data index --for experiment=digits/mllm`"
)

app = typer.Typer(help="Make, convert, index and look at data sets.", no_args_is_help=True)
app.add_typer(data_convert.app)
app.add_typer(data_inspect.app)


@app.command("digits", epilog="Example: `mllm-npu data digits --out data/digits`")
def data_digits(
    out: Annotated[Path, typer.Option(help="Folder of the data set.")] = Path("data/digits"),
    seed: Annotated[int, typer.Option(help="Of the split and the compositions.")] = 0,
) -> None:
    """Make the digits world: 1797 real scans as captions, strips, pages, sums and conversations."""
    _make_world("data.worlds.digits", "make_digits", out, seed)


@app.command("scenes", epilog="Example: `mllm-npu data scenes --out data/scenes`")
def data_scenes(
    out: Annotated[Path, typer.Option(help="Folder of the data set.")] = Path("data/scenes"),
    seed: Annotated[int, typer.Option(help="Of the split and the compositions.")] = 0,
) -> None:
    """Make the scenes world: coloured shapes at positions, rendered while training."""
    _make_world("data.worlds.scenes", "make_scenes", out, seed)


@app.command("index", epilog=_INDEX_EXAMPLES)
def data_index(
    shards: Annotated[
        list[str] | None,
        typer.Argument(
            help="Webdataset tars: paths, globs, brace lists, URLs.", show_default=False
        ),
    ] = None,
    meant_for: Annotated[
        list[str] | None,
        typer.Option("--for", help="Override of a run whose data sets are indexed and measured."),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 works in this one.")] = 0,
    as_json: Json = False,
) -> None:
    """Write the index beside each shard; unchanged shards are left alone.

    With `--for`, the tokens of every row are counted as well, which a run would do at its start.
    """
    if bool(shards) == bool(meant_for):
        raise typer.BadParameter("give shards, or --for a run")
    if meant_for:
        _measure(meant_for, workers, as_json=as_json)
        return
    progress, move = bar("indexing")
    with progress:
        report = later("data.index").index_shards(shards, progress=move, num_workers=workers)
    for shard, broken in report.breaks:
        console.print(f"broken: {shard}, byte {broken.offset}: {broken.reason}", style="yellow")
    if as_json:
        breaks = [[shard, one.offset, one.reason] for shard, one in report.breaks]
        typer.echo(
            json.dumps(
                {"samples": report.num_samples, "shards_built": report.num_built, "breaks": breaks}
            )
        )
    console.print(f"{report.num_samples} samples indexed, {report.num_built} shards anew")


def _measure(overrides: list[str], workers: int, *, as_json: bool) -> None:
    build, config = later("build"), later("config").load_config("training", overrides)
    build.require_world(config)
    processor = build.build_processor(config)
    sources = [build.build_part(node) for node in config.dataset.sources]
    progress, move = bar("measuring")
    with progress:
        found = later("data.measure").measure_sources(
            sources, processor, num_workers=workers, progress=move
        )
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(one) for one in found]))
    for one in found:
        console.print(
            f"{one.name}: {one.num_samples} samples, {one.num_usable} usable, "
            f"{one.num_targets:.0f} tokens to learn"
        )


def _make_world(module: str, function: str, out: Path, seed: int) -> None:
    progress, move = bar(f"making {out}")
    with progress:
        getattr(later(module), function)(out, seed=seed, progress=move)
    console.print(f"made {out}")
