"""The commands people type: train, evaluate, generate, chat, data, config, doctor."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from collections.abc import Sequence
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

from mllm_npu import __version__
from mllm_npu.errors import MllmNpuError

_UsageError: Any = typer.BadParameter.__base__
"""What a wrong option or argument raises; typer exports only this child of it."""

EXIT_REFUSED = 2
EXIT_STOPPED = 130
"""Training was interrupted and can go on; the number shells give a command that Ctrl-C ends."""

app = typer.Typer(
    name="mllm-npu",
    help="Compose, train, evaluate and talk to modular multimodal language models.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Make and index data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")
console = Console(stderr=True, highlight=False)

Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Hydra overrides, e.g. train.max_steps=20", show_default=False),
]
Run = Annotated[Path, typer.Argument(help="Folder of a run, a stage or a model.")]
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


@app.command(
    epilog="Examples: `mllm-npu train experiment=digits` · "
    "`mllm-npu train experiment=digits/mllm models/language_model=qwen3_tiny name=qwen`"
)
def train(
    overrides: Overrides = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget what the run folder holds.")
    ] = False,
) -> None:
    """Train an experiment: every stage of it, each from where it stopped."""
    stages = later("train.stages")
    *_, last = stages.train_experiment(overrides or [], fresh=fresh, say=console.print)
    if not stages.is_finished(last):
        raise typer.Exit(EXIT_STOPPED)
    console.print(f"done: {last}")


@app.command(epilog="Example: `mllm-npu evaluate runs/digits`")
def evaluate(
    run: Run,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Examples per task, for a quick look.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure a run on held-out data; writes report.json and report.html into it."""
    build = later("build")
    folder = build.find_model_folder(run)
    engine, config = build.load_engine(folder)
    progress, move = bar("evaluating")
    with progress:
        report = later("evaluate.suite").evaluate_run(
            engine,
            world=Path(config.world_dir),
            run=run,
            options=build.build_part(config.generation),
            limit=limit,
            progress=move,
        )
    if as_json:
        typer.echo(json.dumps(report["figures"]))
    else:
        console.print(later("evaluate.table").figures_table(report))
        console.print(f"report: {run / 'report.html'}")


@app.command(
    epilog='Examples: `mllm-npu generate runs/digits "Draw a seven." --out seven.png` · '
    '`mllm-npu generate runs/digits "Which digit is this?" --image scan.png`'
)
def generate(
    run: Run,
    prompt: Annotated[str, typer.Argument(help="What to ask.")],
    images: Images = None,
    out: Annotated[Path | None, typer.Option(help="Where a drawn picture is saved.")] = None,
    draw: Annotated[bool, typer.Option("--draw", help="Begin the reply with a picture.")] = False,
    seed: Annotated[int | None, typer.Option(help="Of sampling and of the noise.")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Pull of the prompt on the picture.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Solver steps of the image decoder.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest reply.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 takes the best token.")] = None,
    as_json: Json = False,
) -> None:
    """Answer one prompt with text, pictures or both."""
    files = later("inference.picture_files")
    path = out or Path("picture.png")
    files.check_name(path)
    pictures = files.open_pictures(images or [])
    build = later("build")
    engine, config = build.load_engine(build.find_model_folder(run))
    options = _options(
        build.build_part(config.generation),
        images="force" if draw else None,
        seed=seed,
        guidance=guidance,
        image_steps=steps,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
    )
    reply = engine.reply(later("processing.conversation").ask(prompt, pictures), options)
    saved = [str(path) for path in files.save_pictures(reply.pictures, path)]
    if as_json:
        typer.echo(
            json.dumps(
                {"text": reply.text, "pictures": saved, "finish_reason": reply.finish_reason}
            )
        )
    else:
        typer.echo(reply.text)
        for name in saved:
            console.print(f"picture: {name}")


@app.command(epilog="Example: `mllm-npu chat runs/digits`")
def chat(
    run: Run,
    images: Images = None,
    out: Annotated[Path, typer.Option(help="Folder for drawn pictures.")] = Path("pictures"),
) -> None:
    """Talk in the terminal: text and pictures in, text and pictures out, turn by turn."""
    files = later("inference.picture_files")
    files.check_folder(out)
    pictures = files.open_pictures(images or [])
    build = later("build")
    engine, config = build.load_engine(build.find_model_folder(run))
    later("inference.terminal").chat(
        engine, options=build.build_part(config.generation), pictures=pictures, folder=out
    )


@data_app.command("digits", epilog="Example: `mllm-npu data digits --out data/digits`")
def data_digits(
    out: Annotated[Path, typer.Option(help="Folder of the data set.")] = Path("data/digits"),
    seed: Annotated[int, typer.Option(help="Of the split and the compositions.")] = 0,
) -> None:
    """Make the digits world: 1797 real scans as captions, strips, pages, sums and conversations."""
    _make_world("data.worlds.digits", "make_digits", out, seed)


@data_app.command("scenes", epilog="Example: `mllm-npu data scenes --out data/scenes`")
def data_scenes(
    out: Annotated[Path, typer.Option(help="Folder of the data set.")] = Path("data/scenes"),
    seed: Annotated[int, typer.Option(help="Of the split and the compositions.")] = 0,
) -> None:
    """Make the scenes world: coloured shapes at positions, rendered while training."""
    _make_world("data.worlds.scenes", "make_scenes", out, seed)


@data_app.command("index", epilog="Example: `mllm-npu data index 'shards/*.tar'`")
def data_index(shards: Annotated[str, typer.Argument(help="Glob of webdataset tars.")]) -> None:
    """Write the index beside each shard; unchanged shards are left alone."""
    progress, move = bar("indexing")
    with progress:
        count = later("data.index").index_shards(shards, progress=move)
    console.print(f"{count} samples indexed")


@app.command(epilog="Example: `mllm-npu config experiment=digits/mllm models/projector=mlp`")
def config(overrides: Overrides = None, as_json: Json = False) -> None:
    """Print the configuration that overrides compose to, every reference resolved."""
    module = later("config")
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


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Compose, train, evaluate and talk to modular multimodal language models."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


def _make_world(module: str, function: str, out: Path, seed: int) -> None:
    progress, move = bar(f"making {out}")
    with progress:
        getattr(later(module), function)(out, seed=seed, progress=move)
    console.print(f"made {out}")


def _options(defaults: Any, **asked: Any) -> Any:
    return dataclasses.replace(
        defaults, **{key: value for key, value in asked.items() if value is not None}
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a refusal is one line on stderr and exit code 2.

    Args:
        arguments: as typed after ``mllm-npu``; None takes those of the process.

    Returns:
        The exit code.
    """
    typed = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(args=typed or ["--help"], prog_name="mllm-npu", standalone_mode=False)
    except MllmNpuError as error:
        return _refuse(type(error).__name__, str(error))
    except _UsageError as error:
        said = error.format_message().strip().rstrip(".")
        if not said:  # a command group by itself has shown its help
            return EXIT_REFUSED
        path = error.ctx.command_path if error.ctx else "mllm-npu"
        return _refuse("UsageError", f"{said}. See: {path} --help")
    except typer.Abort:
        return EXIT_STOPPED
    return code if isinstance(code, int) else 0


def _refuse(kind: str, message: str) -> int:
    sys.stderr.write(f"{kind}: {' '.join(message.split())}\n")
    return EXIT_REFUSED


if __name__ == "__main__":
    sys.exit(main())
