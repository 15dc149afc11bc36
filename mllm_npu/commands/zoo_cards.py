"""Commands about the models of the zoo: list, show, check, save, push, ship."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from mllm_npu.commands.console import Json, Run, console, later
from mllm_npu.errors import ConfigError
from mllm_npu.shipped import SHIPPED_FOLDER, shipped_names

app = typer.Typer()

Name = Annotated[str, typer.Argument(help="Of a card; see: mllm-npu zoo list")]


@app.command("list", epilog="Examples: `mllm-npu zoo list` · `mllm-npu zoo list --family llava`")
def list_(
    family: Annotated[
        str | None, typer.Option(help="One layout only: seedx, mllm, llava, llava_next, ...")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the models that are known here."""
    cards, tables = later("zoo.card"), later("zoo.card_table")
    found = [cards.find_card(name) for name in cards.card_names()]
    families = sorted({card.family for card in found})
    if family is not None and family not in families:
        raise ConfigError(f"{family!r} is no family of the zoo. There are: {', '.join(families)}.")
    shown = [card for card in found if family in (None, card.family)]
    if as_json:
        typer.echo(json.dumps([tables.card_json(card) for card in shown]))
    else:
        console.print(tables.cards_table(shown))
        console.print("all about one of them: mllm-npu zoo show NAME")


@app.command(epilog="Example: `mllm-npu zoo show llava_1_5_7b`")
def show(name: Name, as_json: Json = False) -> None:
    """Show all that is known of a model, and the commands to get, check, import, ask and train."""
    card, tables = later("zoo.card").find_card(name), later("zoo.card_table")
    if as_json:
        typer.echo(json.dumps(tables.card_json(card)))
        return
    for line in tables.card_lines(card):
        console.print(line, markup=False, soft_wrap=True)


@app.command(
    epilog="Examples: `mllm-npu zoo check llava_1_5_7b pretrained/llava-1.5-7b-hf` · "
    "`mllm-npu zoo check digits`"
)
def check(
    name: Name,
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="Where it was downloaded to; not needed for a model that comes with the package.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare a downloaded folder with its card: names, sizes, hashes."""
    card = later("zoo.card").find_card(name)
    if folder is None and name not in shipped_names():
        raise ConfigError(f"{name} does not come with the package. Give the folder it lies in.")
    progress = Progress(
        TextColumn("hashing"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with progress:
        task = progress.add_task("hashing", total=None)
        found = later("zoo.card_check").check_folder(
            card,
            folder or SHIPPED_FOLDER / name,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    if as_json:
        seen = {"files": found.num_files, "hashed": found.num_hashed, "bytes": found.num_bytes}
        typer.echo(json.dumps({"name": name, **seen}))
        return
    size = later("zoo.card_table").short_bytes(found.num_bytes)
    console.print(
        f"{name}: {found.num_files} files, {size}; {found.num_hashed} have the published content"
        + ("" if found.num_hashed == found.num_files else ", no hash is known of the others")
    )


@app.command(epilog="Example: `mllm-npu zoo save runs/digits --out my/digits --licence apache-2.0`")
def save(
    run: Run,
    out: Annotated[Path, typer.Option(help="Folder to write; not there yet.")],
    licence: Annotated[
        str | None, typer.Option(help="Of the weights, as the Hub names it: apache-2.0, ...")
    ] = None,
    base: Annotated[
        list[str] | None, typer.Option("--base", help="Hub id of what it was made of; repeatable.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Of the card; else the run's name.")] = None,
) -> None:
    """Write a model folder with its model card, ready for the Hub.

    The card is made from the run: data, recipe, figures of report.json, pictures, configuration.
    """
    facts = later("zoo.model_card").CardFacts(
        licence=licence, base_models=tuple(base or ()), title=title
    )
    with console.status(f"writing {out}"):
        made = later("zoo.pretrained").save_pretrained(run, out, facts=facts)
    console.print(f"saved: {made}\nread its card: {made / 'README.md'}", soft_wrap=True)


@app.command(epilog="Example: `mllm-npu zoo push my/digits me/digits --private`")
def push(
    folder: Annotated[Path, typer.Argument(help="Written by mllm-npu zoo save.")],
    repo: Annotated[str, typer.Argument(help="On the Hub: OWNER/NAME.")],
    private: Annotated[
        bool, typer.Option("--private/--public", help="Who sees a repository made for it.")
    ] = True,
    message: Annotated[str, typer.Option(help="Of the commit.")] = "Upload a mllm-npu model",
) -> None:
    """Put a saved model on the Hugging Face Hub; log in first with hf auth login."""
    with console.status(f"uploading {folder} to {repo}"):
        address = later("zoo.pretrained").push_to_hub(
            folder, repo, private=private, message=message
        )
    console.print(f"pushed: {address}", soft_wrap=True)


@app.command(epilog="Example: `mllm-npu zoo ship runs/digits --as digits`")
def ship(
    run: Run,
    name: Annotated[str, typer.Option("--as", help="Name of the card.")],
) -> None:
    """Put a trained model into the package, with its hashes; for those who work on it."""
    card = later("zoo.shipped_model").ship_model(run, name)
    size = later("zoo.card_table").short_bytes(sum(file.size for file in card.files))
    console.print(f"shipped: {SHIPPED_FOLDER / name} ({len(card.files)} files, {size})")
