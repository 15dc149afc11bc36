"""Commands that bring released models in, and trained ones out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mllm_npu.commands.console import Overrides, console, later
from mllm_npu.errors import ConfigError

app = typer.Typer(help="Bring released models in, and trained ones out.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Bring released models in, and trained ones out."""


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


@app.command(
    epilog="Example: `mllm-npu zoo export runs/seedx/sft --out runs/seedx/model` · "
    "`mllm-npu zoo export runs/digits/mllm --step 1000 --last-weights --out /tmp/model`"
)
def export(
    stage: Annotated[Path, typer.Argument(help="Folder of a stage, with its checkpoints.")],
    out: Annotated[Path, typer.Option(help="Model folder to write; not there yet.")],
    step: Annotated[
        int | None, typer.Option(min=0, help="Checkpoint to take; the newest without it.")
    ] = None,
    last_weights: Annotated[
        bool, typer.Option("--last-weights", help="The last weights, not their averages.")
    ] = False,
) -> None:
    """Make a model folder of a checkpoint, on one machine, however many ranks have written it.

    Low-rank updates are folded in; every command that takes a run takes the folder.
    """
    if out.exists():
        raise ConfigError(f"{out} is there already. Give a folder that is not.")
    with console.status(f"exporting {stage}"):
        found = later("export").export_stage(stage, out, step=step, averaged=not last_weights)
    console.print(f"exported step {found}: {out}")
