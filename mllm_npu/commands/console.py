"""What the commands share: the console, options with one meaning, late imports, progress bars."""

from __future__ import annotations

import importlib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

EXIT_STOPPED = 130
"""Training was interrupted and can go on; the number shells give a command that Ctrl-C ends."""

console = Console(stderr=True, highlight=False)


class Quantization(StrEnum):
    """How weights are kept in fewer bytes."""

    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    INT8 = "int8"


Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Hydra overrides, e.g. train.max_steps=20", show_default=False),
]
Run = Annotated[
    Path, typer.Argument(help="Folder of a run, a stage or a model, or a shipped model's name.")
]
Quantize = Annotated[
    Quantization | None,
    typer.Option(help="Keep the weights in fewer bytes; int8 needs mllm-npu[quant]."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON line for machines.")]
Images = Annotated[
    list[Path] | None, typer.Option("--image", "-i", help="Picture to look at; repeatable.")
]


def later(module: str) -> Any:
    """Import a part when its command runs, so that ``--help`` does not wait for torch."""
    return importlib.import_module(f"mllm_npu.{module}")


def bar(label: str) -> tuple[Progress, Any]:
    """A progress bar with the time left, and the function that moves it: ``(done, total)``."""
    progress = Progress(
        TextColumn(label),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task = progress.add_task(label, total=None)
    return progress, lambda done, total: progress.update(task, completed=done, total=total)
