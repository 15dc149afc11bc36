"""Put a trained model into the package, and its files, hashes and figures into its card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mllm_npu.config import read_config
from mllm_npu.errors import ConfigError, DataError
from mllm_npu.model_folder import MODEL_FILE, find_model_folder, list_model_files, world_of
from mllm_npu.shipped import SHIPPED_FOLDER
from mllm_npu.zoo.card import CARD_FOLDER, Card, read_card
from mllm_npu.zoo.card_check import hash_file

MOST_BYTES = 20_000_000
"""Of a model in the package: everybody who installs it carries it."""
MARK = "# From here on as mllm-npu zoo ship has written it.\n"
"""Ends what people write in the card of a shipped model."""
QUALITY = (
    *("comprehension_accuracy", "reconstruction_judged", "reconstruction_mse", "draw_judged"),
    *("draw_diversity", "ocr_exact_match", "sum_accuracy"),
)


def ship_model(
    run: Path, name: str, *, models: Path = SHIPPED_FOLDER, cards: Path = CARD_FOLDER
) -> Card:
    """Copy the model of a run into the package, and renew its card.

    The run must have been evaluated: a card says how good its model is.

    Args:
        run: a folder with report.json.
        name: of the card, which is there already.
        models: folder of all shipped models.
        cards: folder of all cards.

    Returns:
        The card as it is now.

    Raises:
        ConfigError: there is no such card, the model is too large or needs something of this
            machine.
        DataError: the run was not evaluated.
    """
    card = cards / f"{name}.yaml"
    if not card.is_file():
        raise ConfigError(f"{card} is not there. Write the card of the model first.")
    report = read_report(run)
    source = find_model_folder(run)
    files = _portable_files(source)
    size = sum(path.stat().st_size for path in files)
    if size > MOST_BYTES:
        raise ConfigError(
            f"{source} has {size} bytes; a model in the package has at most {MOST_BYTES}."
        )
    folder = models / name
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for path in files:
        copied = partial / path.relative_to(source)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copied)  # without its rights: everybody who installs reads it
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    written = card.read_text(encoding="utf-8").partition(MARK)[0]
    card.write_text(written + MARK + "files: []\n", encoding="utf-8")
    config = read_card(card).config
    experiment = config.experiments[0] if config and config.experiments else name
    told = describe(folder, report, training=f"mllm-npu train experiment={experiment}")
    card.write_text(written + MARK + told, encoding="utf-8")
    return read_card(card)


def read_report(run: Path) -> Mapping[str, Any]:
    """Content of a run's report.json.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    path = run / "report.json"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} was asked for and cannot be read: {error}. Evaluate the run: "
            f"mllm-npu evaluate {run}"
        ) from error
    if not isinstance(report, dict) or not isinstance(report.get("figures"), dict):
        raise DataError(f"{path} holds no figures. Evaluate the run: mllm-npu evaluate {run}")
    return report


def describe(folder: Path, report: Mapping[str, Any], *, training: str) -> str:
    """What a card says of a model folder and of its figures, as YAML.

    Args:
        folder: of the model.
        report: content of report.json.
        training: the command that trains it.
    """
    titles = {entry["name"]: entry["title"] for entry in report.get("details", ())}
    figures = report["figures"]

    def rows(*names: str) -> list[tuple[str, float]]:
        return [(titles.get(name, name), figures[name]) for name in names if name in figures]

    text = _figures("quality", rows(*QUALITY), f"mllm-npu evaluate {folder.name}")
    text += _figures("memory", rows("peak_rss_gib"), training)
    text += _figures("speed", rows("train_seconds"), training)
    text += "files:\n"
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        text += f"  - path: {path.relative_to(folder).as_posix()}\n"
        text += f"    size: {path.stat().st_size}\n    sha256: {hash_file(path)}\n"
    return text


def _figures(name: str, rows: Sequence[tuple[str, float]], command: str) -> str:
    lines = [
        f"  - what: {json.dumps(what, ensure_ascii=False)}\n    value: {value}\n    by: {command}\n"
        for what, value in rows
    ]
    return f"{name}:\n{''.join(lines)}" if lines else f"{name}: []\n"


def _portable_files(folder: Path) -> list[Path]:
    """Files of a model folder that needs nothing else.

    Raises:
        ConfigError: its weights or its data are named by places of this machine.
    """
    config = read_config(folder / MODEL_FILE, "model")
    if config.weights:
        raise ConfigError(
            f"{folder} refers to weights elsewhere. Write them into it: mllm-npu zoo import --copy"
        )
    if config.world_dir is not None and world_of(folder).is_absolute():
        raise ConfigError(
            f"{folder} names the data {config.world_dir}, a place of this machine. Train with a "
            "relative world_dir."
        )
    config.tokenizer.path = str(folder / config.tokenizer.path)
    found: list[Path] = []
    for path in list_model_files(folder, config):
        found += [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sorted(found)
