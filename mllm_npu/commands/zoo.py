"""Commands that bring released models in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mllm_npu.commands.console import Overrides, console, later

app = typer.Typer(help="Bring released models in.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Bring released models in."""


@app.command(
    "import",
    epilog="Example: `mllm-npu zoo import workers=seedx --out runs/seedx`",
)
def import_(
    out: Annotated[Path, typer.Option(help="Model folder to write; not there yet.")],
    overrides: Overrides = None,
    copy: Annotated[
        bool, typer.Option("--copy", help="Write the values into it, as safetensors.")
    ] = False,
) -> None:
    """Make a model folder of released weights; every command that takes a run takes it.

    Loads the weights once to see that they fit. Without `--copy` the folder says where they are.
    """
    config = later("config").load_config("model", overrides or [])
    console.print(f"reading {', '.join(config.weights or [])}")
    folders = later("model_folder")
    made = folders.import_model(config, out, copy=copy, say=lambda line: console.print(line))
    console.print(f"imported: {made}")
