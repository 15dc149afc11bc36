"""Read what a run left behind: its figures, stages, data and examples, for its model card."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm_npu.config import plain, read_stage
from mllm_npu.errors import ConfigError

REPORT, RECORDS, PICTURES, STAGE = "report.json", "records.jsonl", "pictures", "config.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFigure:
    """One measured figure.

    Args:
        name: as in report.json.
        title: in words.
        value: as measured.
        interval: 95 % interval of it; None where it has none.
        num: examples it comes from; None where that means nothing.
        citation: of what was measured and how.
    """

    name: str
    title: str
    value: float
    interval: tuple[float, float] | None = None
    num: int | None = None
    citation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFacts:
    """How one stage was trained.

    Args:
        name: of its folder.
        start: folder of the weights it started from; None where it started at random.
        steps: updates.
        lr: peak learning rate; None where it is not said.
        tokens_per_pack: of one pack; None for rows of another kind.
        seconds: wall time; None while it is not finished.
        sources: data it read: name and share.
        seed: of weights, order and noise.
    """

    name: str
    start: str | None
    steps: int | None
    lr: float | None
    tokens_per_pack: int | None
    seconds: float | None
    sources: tuple[tuple[str, float], ...]
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One question of an evaluation, as it was answered.

    Args:
        question: what was asked.
        reply: what was answered; empty where a picture was drawn.
        answer: the right one.
        is_right: whether it was judged right.
        read: pictures that were shown.
        drawn: pictures that were drawn.
    """

    question: str
    reply: str
    answer: str
    is_right: bool
    read: tuple[Path, ...] = ()
    drawn: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What is known of a run beside its model.

    Args:
        folder: of the run; None where there is only a model.
        figures: as measured.
        stages: in the order they were trained.
        world: data set made on the machine it was trained on; None for other data.
        machine: it was measured on, in words.
        versions: of libraries it was measured with.
    """

    folder: Path | None = None
    figures: tuple[CardFigure, ...] = ()
    stages: tuple[StageFacts, ...] = ()
    world: str | None = None
    machine: Mapping[str, Any] | None = None
    versions: Mapping[str, str] | None = None


def read_run(run: Path, model: Path) -> RunFacts:
    """What a run left behind.

    Args:
        run: as it was named.
        model: its model folder; the report lies there or up to two folders above.
    """
    places = dict.fromkeys((run, model, model.parent, model.parent.parent))
    folder = next((place for place in places if (place / REPORT).is_file()), None)
    report = _read_json(folder / REPORT) if folder else {}
    homes = [place for place in places if _stage_files(place)]
    return RunFacts(
        folder=folder,
        figures=tuple(_figures(report)),
        stages=tuple(_stage(file) for file in (_stage_files(homes[0]) if homes else ())),
        world=report.get("world"),
        machine=report.get("machine"),
        versions=report.get("versions"),
    )


def read_examples(folder: Path) -> Iterator[Example]:
    """Questions of an evaluation with their pictures, in order.

    Args:
        folder: of a run, with records.jsonl.
    """
    file = folder / RECORDS
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        row = json.loads(line)
        read, drawn = (
            tuple(folder / PICTURES / name for name in row.get(key, ()))
            for key in ("pictures_read", "pictures_drawn")
        )
        if all(path.is_file() for path in (*read, *drawn)):
            yield Example(
                question=" ".join(map(str, row.get("question", ()))),
                reply=str(row.get("reply", "")),
                answer=str(row.get("answer", "")),
                is_right=bool(row.get("score")),
                read=read,
                drawn=drawn,
            )


def _stage_files(place: Path) -> list[Path]:
    found = [*place.glob(STAGE), *place.glob(f"*/{STAGE}")]
    return sorted(found, key=lambda path: path.stat().st_mtime)


def _stage(file: Path) -> StageFacts:
    config = plain(read_stage(file))
    train, dataset = config["train"] or {}, config["dataset"] or {}
    summary = _read_json(file.with_name("summary.json"))
    sources = [source for source in dataset.get("sources") or () if isinstance(source, Mapping)]
    return StageFacts(
        name=str(config["stage"]),
        start=_name_of(config["initialise_from"]),
        steps=summary.get("steps", train.get("max_steps")),
        lr=(train.get("optimizer") or {}).get("lr"),
        tokens_per_pack=dataset.get("tokens_per_pack"),
        seconds=summary.get("seconds"),
        sources=tuple(_shares(sources)),
        seed=config["seed"],
    )


def _shares(sources: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, float]]:
    weights = [float(source.get("weight") or 0) for source in sources]
    total = sum(weights) or 1.0
    for source, weight in zip(sources, weights, strict=True):
        yield str(source.get("name")), weight / total


def _name_of(start: str | list[str] | None) -> str | None:
    """The last two names of a path: a card tells what it was, and no place of a machine."""
    if start is None:
        return None
    paths = [start] if isinstance(start, str) else start
    return ", ".join("/".join(Path(path).parts[-2:]) for path in paths)


def _figures(report: Mapping[str, Any]) -> Iterator[CardFigure]:
    for entry in report.get("details", ()):
        interval = entry.get("interval")
        if isinstance(entry.get("value"), int | float) and entry.get("level", 0) == 0:
            yield CardFigure(
                name=entry["name"],
                title=entry.get("title", entry["name"]),
                value=entry["value"],
                interval=tuple(interval) if interval else None,
                num=entry.get("num"),
                citation=entry.get("citation") or "",
            )


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} cannot be read: {error}. Evaluate the run again.") from error
    return values if isinstance(values, dict) else {}
