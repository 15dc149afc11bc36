"""Commands that look at what is set up: config, doctor."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from mllm_npu.commands.console import Json, Overrides, console, later

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


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check Python, torch, devices, memory, disk; exit code 1 where something must be done."""
    module = later("device.doctor")
    checks = module.run_checks()
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(check) for check in checks]))
    else:
        console.print(module.checks_table(checks))
    if any(check.state == "bad" for check in checks):
        raise typer.Exit(1)
