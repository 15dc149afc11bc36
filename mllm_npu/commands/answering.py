"""Commands that ask a model: generate, chat, redraw."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from mllm_npu.commands.console import Images, Json, Quantize, Run, bar, console, later
from mllm_npu.errors import RequestError

app = typer.Typer()


@app.command(
    epilog='Examples: `mllm-npu generate runs/digits "Draw a seven." --out seven.png` · '
    '`mllm-npu generate runs/digits "Which digit is this?" --image scan.png` · '
    "`mllm-npu generate runs/digits --batch questions.jsonl --out answers.jsonl` · "
    '`mllm-npu generate runs/digits "Which digit is this?" --batch scans --out answers.jsonl`'
)
def generate(
    run: Run,
    prompt: Annotated[str, typer.Argument(help="What to ask.")] = "",
    images: Images = None,
    batch: Annotated[
        Path | None,
        typer.Option(
            help="Many questions: JSON lines with prompt, images, id and options, or a folder of "
            "pictures that the prompt is asked of. Goes on where --out ends."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where a drawn picture is saved; with --batch the answers (.jsonl)."),
    ] = None,
    draw: Annotated[bool, typer.Option("--draw", help="Begin the reply with a picture.")] = False,
    seed: Annotated[int | None, typer.Option(help="Of sampling and of the noise.")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Pull of the prompt on the picture.")
    ] = None,
    image_guidance: Annotated[
        float | None, typer.Option(help="Pull of the picture that is changed.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Solver steps of the image decoder.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest reply.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 takes the best token.")] = None,
    quantize: Quantize = None,
    as_json: Json = False,
) -> None:
    """Answer one prompt with text, pictures or both."""
    asked = {
        "images": "force" if draw else None,
        "seed": seed,
        "guidance": guidance,
        "image_guidance": image_guidance,
        "image_steps": steps,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
    }
    if batch is not None:
        answers = out or Path("answers.jsonl")
        _answer_batch(run, prompt, batch, answers, asked, images, quantize, as_json)
        return
    if not prompt and not images:
        raise RequestError("The question is empty. Give a prompt, --image or --batch.")
    files = later("inference.picture_files")
    path = out or Path("picture.png")
    files.check_name(path)
    pictures = files.open_pictures(images or [])
    build, folders = later("build"), later("model_folder")
    engine, config = folders.load_engine(folders.find_model_folder(run), quantize=quantize)
    options = _options(build.build_part(config.generation), **asked)
    reply = engine.reply(later("processing.conversation").ask(prompt, pictures), options)
    saved = [str(path) for path in files.save_pictures(reply.pictures, path)]
    marked = files.save_boxes(pictures, reply.boxes, path)
    if as_json:
        said = {"text": reply.text, "pictures": saved, "finish_reason": reply.finish_reason}
        boxes = [dataclasses.asdict(box) for box in reply.boxes]
        typer.echo(json.dumps(said | {"boxes": boxes, "marked": marked and str(marked)}))
    else:
        typer.echo(reply.text)
        for name in saved:
            console.print(f"picture: {name}")
        if marked:
            console.print(f"boxes: {marked}")


def _answer_batch(
    run: Path,
    prompt: str,
    batch: Path,
    out: Path,
    asked: Mapping[str, Any],
    images: Sequence[Path] | None,
    quantize: str | None,
    as_json: bool,
) -> None:
    if images:
        raise RequestError(
            "--image goes with one question. With --batch name pictures in its lines."
        )
    if out.suffix != ".jsonl":
        raise RequestError(
            f"--out {out} is no .jsonl file, which answers to --batch are. Name one."
        )
    questions = later("inference.question_file").read_questions(batch, prompt)
    folders = later("model_folder")
    engine, config = folders.load_engine(folders.find_model_folder(run), quantize=quantize)
    options = _options(later("build").build_part(config.generation), **asked)
    progress, move = bar("answering")
    with progress:
        done = later("inference.answer_file").answer_all(
            engine, questions, options, out, progress=move
        )
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(done) | {"out": str(out)}))
        return
    refused = f", {done.refused} refused (see their error)" if done.refused else ""
    kept = f", {done.kept} were there" if done.kept else ""
    console.print(f"{done.answered} answered{kept}{refused}: {out}")


class ShownPictures(StrEnum):
    """How ``chat`` shows pictures."""

    AUTO = "auto"
    KITTY = "kitty"
    ITERM = "iterm"
    SIXEL = "sixel"
    BLOCKS = "blocks"
    OFF = "off"


@app.command(
    epilog="Examples: `mllm-npu chat digits` · `mllm-npu chat runs/digits --pictures sixel` · "
    "`mllm-npu chat runs/digits --quantize int8`"
)
def chat(
    run: Run,
    images: Images = None,
    out: Annotated[Path, typer.Option(help="Folder for drawn pictures.")] = Path("pictures"),
    shown: Annotated[
        ShownPictures,
        typer.Option("--pictures", help="How they are shown; auto looks which terminal it is."),
    ] = ShownPictures.AUTO,
    quantize: Quantize = None,
) -> None:
    """Talk in the terminal: text and pictures in, text and pictures out, turn by turn."""
    files = later("inference.picture_files")
    files.check_folder(out)
    pictures = files.open_pictures(images or [])
    build, folders = later("build"), later("model_folder")
    engine, config = folders.load_engine(folders.find_model_folder(run), quantize=quantize)
    later("inference.terminal").chat(
        engine,
        options=build.build_part(config.generation),
        pictures=pictures,
        folder=out,
        show=shown.value,
    )


@app.command(epilog="Example: `mllm-npu redraw runs/detokenizer photo.jpg --out redrawn`")
def redraw(
    run: Run,
    pictures: Annotated[list[Path], typer.Argument(help="Pictures to send through.")],
    out: Annotated[Path, typer.Option(help="Folder for what is drawn.")] = Path("redrawn"),
    change: Annotated[
        Path | None, typer.Option("--change", help="Picture in view of an editing decoder.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the noise.")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Pull of the features on the picture.")
    ] = None,
    image_guidance: Annotated[
        float | None, typer.Option(help="Pull of the picture in view.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Solver steps of the image decoder.")] = None,
    as_json: Json = False,
) -> None:
    """Send pictures through the vision encoder and the image decoder, past the language model.

    Says how close each drawn picture is to what was sent (PSNR in dB, SSIM).
    """
    files, folders = later("inference.picture_files"), later("model_folder")
    files.check_folder(out)
    sent = files.open_pictures(pictures)
    conditions = files.open_pictures([change]) * len(sent) if change else None
    artist, config = folders.load_artist(folders.find_model_folder(run))
    options = _options(
        later("build").build_part(config.generation),
        seed=seed,
        guidance=guidance,
        image_guidance=image_guidance,
        image_steps=steps,
    )
    progress, move = bar("drawing")
    with progress:
        drawn = later("inference.drawing").redraw(
            artist,
            sent,
            options,
            device=later("device.platform").pick_device("auto"),
            conditions=conditions,
            progress=move,
        )
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for path, before, after in zip(pictures, sent, drawn, strict=True):
        file = out / f"{path.stem}.png"
        after.save(file)
        closeness = later("evaluate.similarity").compare_pictures(before, after)
        rows.append({"sent": str(path), "drawn": str(file), **closeness})
    if as_json:
        typer.echo(json.dumps(rows))
    else:
        for row in rows:
            console.print(f"{row['drawn']}: PSNR {row['psnr']:.2f} dB, SSIM {row['ssim']:.3f}")


def _options(defaults: Any, **asked: Any) -> Any:
    return dataclasses.replace(
        defaults, **{key: value for key, value in asked.items() if value is not None}
    )
