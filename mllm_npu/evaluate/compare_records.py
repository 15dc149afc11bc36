"""Read the records of an evaluation back, to set them beside those of another one."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm_npu.errors import DataError
from mllm_npu.evaluate.report import PICTURES, RECORDS

EVALUATION = "evaluation"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordLine:
    """One line of records.jsonl.

    Args:
        example: its name.
        question: its texts, solved examples left out.
        num_shots: how many those are.
        answer: what is right.
        reply: what the model wrote.
        understood: the reply as the score understood it; None where it could not be read.
        score: of the reply.
        groups: what the example belongs to, from the widest to the narrowest.
        refused: why it could not be asked; None where it was.
        num_pictures: how many the model drew.
        read: names of copies of the pictures it was shown.
        drawn: names of copies of the pictures it drew.
        wanted: names of copies of the right pictures.
    """

    example: str
    question: tuple[str, ...]
    num_shots: int
    answer: str
    reply: str
    understood: str | None
    score: float
    groups: tuple[str, ...]
    refused: str | None
    num_pictures: int
    read: tuple[str, ...]
    drawn: tuple[str, ...]
    wanted: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What an evaluation left in its folder.

    Args:
        folder: of its files.
        name: of the model.
        tasks: lines by task and example, in their order.
        figures: numbers of its report by name.
    """

    folder: Path
    name: str
    tasks: Mapping[str, Mapping[str, RecordLine]]
    figures: Mapping[str, float]

    @property
    def pictures(self) -> Path:
        """Folder of the copies of pictures."""
        return self.folder / PICTURES


def read_evaluation(path: Path) -> Evaluation:
    """The evaluation that a folder means: its own, or of a run the one by benchmarks.

    Args:
        path: of an evaluation, of a run, or records.jsonl itself.

    Raises:
        DataError: there is none, or a line is no record.
    """
    folder = _find_folder(path)
    tasks: dict[str, dict[str, RecordLine]] = {}
    for number, text in enumerate(_read(folder / RECORDS).split("\n"), 1):
        if not text.strip():
            continue
        place = f"{folder / RECORDS}, line {number}"
        try:
            values = json.loads(text)
            task, line = str(values["task"]), _read_line(values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{place} is no record ({error!r}). Evaluate again.") from error
        own = tasks.setdefault(task, {})
        if line.example in own:
            raise DataError(
                f"{place}: the example {line.example!r} of {task} is there twice. Evaluate again."
            )
        own[line.example] = line
    report = _read_report(folder)
    figures = report.get("figures", {})
    return Evaluation(
        folder=folder,
        name=str(report.get("model", folder.resolve().name)),
        tasks=tasks,
        figures=figures if isinstance(figures, dict) else {},
    )


def _find_folder(path: Path) -> Path:
    if path.is_file() and path.name == RECORDS:
        return path.parent
    for folder in (path / EVALUATION, path):
        if (folder / RECORDS).is_file():
            return folder
    raise DataError(
        f"Records of an evaluation were asked for in {path}; there is no {RECORDS}, nor one in its "
        f"folder {EVALUATION}. Make it: mllm-npu evaluate {path}"
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}. Evaluate again.") from error


def _read_report(folder: Path) -> dict[str, Any]:
    path = folder / "report.json"
    if not path.is_file():
        return {}
    try:
        report = json.loads(_read(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is no JSON: {error}. Evaluate again.") from error
    return report if isinstance(report, dict) else {}


def _read_line(values: Mapping[str, Any]) -> RecordLine:
    score = float(values["score"])
    if not math.isfinite(score):
        message = f"its score is {score}"
        raise ValueError(message)
    shots = set(values.get("shots", ()))
    texts = [text for place, text in enumerate(values["question"]) if place not in shots]
    return RecordLine(
        example=str(values["example"]),
        # What all questions of a subject begin with is held once.
        question=tuple(map(sys.intern, texts)),
        num_shots=len(shots),
        answer=str(values["answer"]),
        reply=str(values["reply"]),
        understood=values["understood"],
        score=score,
        groups=tuple(values.get("groups", ())),
        refused=values.get("refused"),
        num_pictures=int(values.get("num_pictures", 0)),
        read=tuple(values.get("pictures_read", ())),
        drawn=tuple(values.get("pictures_drawn", ())),
        wanted=tuple(values.get("pictures_wanted", ())),
    )
