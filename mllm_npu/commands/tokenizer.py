"""Commands that prepare tokenizers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from mllm_npu.commands.console import Json, console, later

app = typer.Typer(help="Prepare tokenizers.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Prepare tokenizers."""


@app.command(
    "add-tokens",
    epilog="Example: `mllm-npu tokenizer add-tokens pretrained/llama3 --out pretrained/tokenizer`",
)
def add_tokens(
    source: Annotated[Path, typer.Argument(help="Folder of a tokenizer.")],
    out: Annotated[Path, typer.Option(help="Folder for the new one; not there yet.")],
    slots: Annotated[int, typer.Option(min=1, help="Image slots.")] = 100,
    locations: Annotated[int, typer.Option(min=0, help="Location tokens for boxes.")] = 224,
    as_json: Json = False,
) -> None:
    """Add the tokens of pictures, places and boxes to any tokenizer, once."""
    tool = later("processing.tokenizer_tool")
    report = tool.extend_tokenizer(source, out, num_slots=slots, num_locations=locations)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(report)))
    else:
        console.print(f"{out}: {report.old_size} -> {report.new_size} ids")
