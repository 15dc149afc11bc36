"""Commands that bring released models in, and trained ones out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from mllm_npu.commands.console import console, later
from mllm_npu.errors import ConfigError

app = typer.Typer(help="Bring released models in, and trained ones out.", no_args_is_help=True)

_LAYOUTS = ("ours", "transformers")


@app.callback()
def group() -> None:
    """Bring released models in, and trained ones out."""


@app.command(
    "import",
    epilog="Examples: `mllm-npu zoo import pretrained/llava-1.5-7b-hf --out runs/llava` · "
    "`mllm-npu zoo import workers=seedx --out runs/seedx`",
)
def import_(
    out: Annotated[Path, typer.Option(help="Model folder to write; not there yet.")],
    given: Annotated[
        list[str] | None,
        typer.Argument(
            help="Folder in the layout of the Hugging Face Hub, or Hydra overrides that name "
            "weights of another layout, e.g. workers=seedx",
            show_default=False,
        ),
    ] = None,
    copy: Annotated[
        bool, typer.Option("--copy", help="Write the values into it, as safetensors.")
    ] = False,
    dtype: Annotated[
        str | None,
        typer.Option(help="Of the values of a Hub folder: float32, bfloat16, float16."),
    ] = None,
    chat_format: Annotated[
        str | None, typer.Option(help="How a Hub folder's conversations are framed.")
    ] = None,
    hashes: Annotated[
        bool, typer.Option(help="Compare a Hub folder with the hashes its download has noted.")
    ] = True,
    card: Annotated[
        str | None, typer.Option(help="Card of the zoo to compare a Hub folder with first.")
    ] = None,
) -> None:
    """Make a model folder of released weights; every command that takes a run takes it.

    A folder of the LLaVA family is recognised by its config.json. Loads the weights once to see
    that they fit. Without `--copy` the model folder says where they are.
    """
    folder = _hub_folder(given or [])
    if folder is not None:
        if card is not None:
            later("zoo.card_check").check_folder(later("zoo.card").find_card(card), Path(folder))
        made = later("zoo.llava_import").import_llava(
            folder,
            out,
            copy=copy,
            dtype=dtype,
            chat_format=chat_format,
            hashes=hashes,
            say=lambda line: console.print(line, soft_wrap=True),
        )
        console.print(f"imported: {made}")
        return
    for name, value in (("dtype", dtype), ("chat-format", chat_format), ("card", card)):
        if value is not None:
            raise ConfigError(
                f"--{name} was given without a folder of the Hugging Face Hub. Set models... or "
                "processor... among the overrides instead."
            )
    config = later("config").load_config("model", given or [])
    console.print(f"reading {', '.join(config.weights or [])}")
    folders = later("model_folder")
    made = folders.import_model(config, out, copy=copy, say=lambda line: console.print(line))
    console.print(f"imported: {made}")


def _hub_folder(given: list[str]) -> str | None:
    """The one argument that is no Hydra override.

    Raises:
        ConfigError: there are several, or overrides beside it.
    """
    folders = [word for word in given if "=" not in word]
    if folders and len(given) > 1:
        raise ConfigError(
            f"{' '.join(given)} was to be imported. Give one folder, or overrides alone."
        )
    return folders[0] if folders else None


@app.command(
    epilog="Examples: `mllm-npu zoo export runs/seedx/sft --out runs/seedx/model` · "
    "`mllm-npu zoo export runs/digits/mllm --step 1000 --last-weights --out /tmp/model` · "
    "`mllm-npu zoo export runs/llava --layout transformers --out served/llava`"
)
def export(
    stage: Annotated[
        Path, typer.Argument(help="Folder of a stage with its checkpoints, or of a model.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write; not there yet.")],
    step: Annotated[
        int | None, typer.Option(min=0, help="Checkpoint to take; the newest without it.")
    ] = None,
    last_weights: Annotated[
        bool, typer.Option("--last-weights", help="The last weights, not their averages.")
    ] = False,
    layout: Annotated[
        str, typer.Option(help="ours: a model folder. transformers: as the Hub has LLaVA models.")
    ] = "ours",
) -> None:
    """Make a model folder of a checkpoint, on one machine, however many ranks have written it.

    Low-rank updates are folded in; every command that takes a run takes the folder. With
    `--layout transformers` a model of the LLaVA family is written as transformers and vLLM load it.
    """
    if layout not in _LAYOUTS:
        raise ConfigError(f"--layout {layout} was given. Choose {' or '.join(_LAYOUTS)}.")
    if out.exists():
        raise ConfigError(f"{out} is there already. Give a folder that is not.")
    if layout == "ours":
        with console.status(f"exporting {stage}"):
            found = later("export").export_stage(stage, out, step=step, averaged=not last_weights)
        console.print(f"exported step {found}: {out}")
        return
    if (stage / "checkpoints").is_dir() and (stage / "config.yaml").is_file():
        _export_checkpoint(stage, out, step=step, averaged=not last_weights)
        return
    if step is not None or last_weights:
        raise ConfigError(f"{stage} has no checkpoints; leave --step and --last-weights out.")
    _write_layout(later("model_folder").find_model_folder(stage), out)
    console.print(f"exported: {out}")


def _export_checkpoint(stage: Path, out: Path, *, step: int | None, averaged: bool) -> None:
    """Write a checkpoint in the layout of the Hub, by way of a model folder beside it."""
    made = out.with_name(f"{out.name}.partial-model")
    shutil.rmtree(made, ignore_errors=True)
    try:
        with console.status(f"exporting {stage}"):
            found = later("export").export_stage(stage, made, step=step, averaged=averaged)
        _write_layout(made, out)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    console.print(f"exported step {found}: {out}")


def _write_layout(folder: Path, out: Path) -> None:
    later("zoo.llava_export").export_llava(
        folder, out, say=lambda line: console.print(line, soft_wrap=True)
    )
