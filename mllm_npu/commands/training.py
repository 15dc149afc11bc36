"""Command that makes a run: train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mllm_npu.commands.console import Overrides, later
from mllm_npu.commands.ranks import leaving_together, say

app = typer.Typer()


@app.command(
    epilog="Examples: `mllm-npu train experiment=digits` · "
    "`mllm-npu train experiment=digits/mllm models/language_model=qwen3_tiny name=qwen` · "
    "`mllm-npu train experiment=llava/lora --model runs/llava`"
)
def train(
    overrides: Overrides = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget what the run folder holds.")
    ] = False,
    model: Annotated[
        Path | None,
        typer.Option(help="Model folder to go on from: its model, processor and tokenizer."),
    ] = None,
) -> None:
    """Train an experiment: every stage of it, each from where it stopped.

    On several devices: `torchrun --nproc-per-node=8 -m mllm_npu.cli train parallel=fsdp2 ...`
    """
    stages = later("train.stages")
    with leaving_together():
        parts = [] if model is None else later("zoo.train_further").offer_model(model)
        *_, last = stages.train_experiment([*parts, *(overrides or [])], fresh=fresh, say=say)
        if stages.is_finished(last):
            say(f"done: {last}")
