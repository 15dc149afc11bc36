"""Command that shows what is set up: config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mllm_npu.commands.console import Json, Overrides, later

app = typer.Typer()


@app.command(epilog="Example: `mllm-npu config experiment=digits/mllm models/projector=mlp`")
def config(
    overrides: Overrides = None,
    from_original: Annotated[
        Path | None,
        typer.Option(
            help="Model YAML written for TencentARC/mllm-npu: print it as values of ours."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the configuration that overrides compose to, every reference resolved."""
    module = later("config")
    if from_original is not None:
        composed = module.read_original(from_original)
    else:
        composed = module.load_config("training", overrides or [])
    typer.echo(
        json.dumps(module.plain(composed)) if as_json else module.to_yaml(composed), nl=as_json
    )
