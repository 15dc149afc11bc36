"""Commands that make and index data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mllm_npu.commands.console import bar, console, later

app = typer.Typer(help="Make and index data sets.", no_args_is_help=True)


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


@app.command("index", epilog="Example: `mllm-npu data index 'shards/*.tar'`")
def data_index(shards: Annotated[str, typer.Argument(help="Glob of webdataset tars.")]) -> None:
    """Write the index beside each shard; unchanged shards are left alone."""
    progress, move = bar("indexing")
    with progress:
        count = later("data.index").index_shards(shards, progress=move)
    console.print(f"{count} samples indexed")


@app.command("pictures", epilog="Example: `mllm-npu data pictures photos --out data/pictures`")
def data_pictures(
    folder: Annotated[Path, typer.Argument(help="Folder of pictures, texts beside them.")],
    out: Annotated[Path, typer.Option(help="Folder for the shards.")],
    rows_per_shard: Annotated[int, typer.Option(min=1, help="Pictures of one shard.")] = 1000,
) -> None:
    """Turn a folder of pictures into indexed shards; equal names up to the dot are one row."""
    progress, move = bar(f"converting {folder}")
    with progress:
        count = later("data.convert.folder").convert_folder(
            folder, out, rows_per_shard=rows_per_shard, progress=move
        )
    console.print(f"{count} rows in {out}")


def _make_world(module: str, function: str, out: Path, seed: int) -> None:
    progress, move = bar(f"making {out}")
    with progress:
        getattr(later(module), function)(out, seed=seed, progress=move)
    console.print(f"made {out}")
