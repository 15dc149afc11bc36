"""The parts of a report page, as plain values for its template."""

from __future__ import annotations

import base64
import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from mllm_npu.errors import DataError
from mllm_npu.evaluate.knob import Trial
from mllm_npu.evaluate.picture_shelf import encode_small
from mllm_npu.evaluate.prompt import list_texts
from mllm_npu.evaluate.runner import TaskResult
from mllm_npu.evaluate.task import Record
from mllm_npu.processing.conversation import DrawnImage, ReadImage
from mllm_npu.processing.raster import Picture, to_pillow


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A small picture of a grid.

    Args:
        source: the picture as a data URL.
        caption: shown when pointed at, and to those who cannot see it.
        is_wrong: whether it is outlined as wrong.
    """

    source: str
    caption: str
    is_wrong: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TileRow:
    """Real pictures and, beside them, drawn ones."""

    label: str
    real: Sequence[Tile]
    drawn: Sequence[Tile]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """Rows of pictures under one headline.

    Args:
        title: headline.
        note: what is to be known about them.
        real_label: what the real pictures are.
        drawn_label: what the drawn ones are.
        rows: in order.
        shows_captions: rows are boxes of their own, a caption under each picture.
    """

    title: str
    note: str
    real_label: str
    drawn_label: str
    rows: Sequence[TileRow]
    shows_captions: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """How often a class (row) was taken for another (column).

    Args:
        title: headline.
        row_label: what the rows are.
        column_label: what the columns are.
        labels: names of the classes; the last column counts everything else.
        counts: one row per class, one number more than classes in each.
    """

    title: str
    row_label: str
    column_label: str
    labels: Sequence[str]
    counts: Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One example as the page shows it."""

    pictures: Sequence[Tile]
    question: str
    answer: str
    understood: str
    drawn: Sequence[Tile]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleSet:
    """Examples of one task, right and wrong ones apart."""

    title: str
    right: Sequence[Shown]
    wrong: Sequence[Shown]
    num_right: int
    num_wrong: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A setting that was chosen on the validation split, with all that was tried."""

    title: str
    tie_break: str
    trials: Sequence[Trial]
    chosen: Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Everything of a report page that is not in report.json."""

    title: str
    lead: str
    galleries: Sequence[Gallery] = ()
    confusions: Sequence[Confusion] = ()
    examples: Sequence[ExampleSet] = ()
    choices: Sequence[Choice] = ()


def make_tile(picture: Image.Image, caption: str, *, is_wrong: bool = False) -> Tile:
    """A picture with its pixels as they are, inside the page."""
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return Tile(source=data_url(file.getvalue(), "png"), caption=caption, is_wrong=is_wrong)


def count_confusions(
    asked: Sequence[int], understood: Sequence[int | None], num: int
) -> list[list[int]]:
    """Counts by asked and by understood class; what is no class goes to one more column."""
    counts = [[0] * (num + 1) for _ in range(num)]
    for row, column in zip(asked, understood, strict=True):
        counts[row][column if column is not None and 0 <= column < num else num] += 1
    return counts


def pick_examples(result: TaskResult, *, num: int = 6) -> ExampleSet:
    """Some right and some wrong examples of a task, spread evenly over it."""
    right = [record for record in result.records if record.score >= 1]
    wrong = [record for record in result.records if record.score < 1]
    return ExampleSet(
        title=result.task.title,
        right=[_show(record) for record in _spread(right, num)],
        wrong=[_show(record) for record in _spread(wrong, num)],
        num_right=len(right),
        num_wrong=len(wrong),
    )


def _spread(records: Sequence[Record], num: int) -> Sequence[Record]:
    step = max(1, len(records) // num)
    return records[::step][:num]


def _show(record: Record) -> Shown:
    parts = [part for turn in record.example.conversation.turns for part in turn.parts]
    truth = record.example.truth
    texts, shots = list_texts(record.example)
    asked = [text.strip() for place, text in enumerate(texts) if place not in shots]
    if shots:
        asked.insert(0, f"({len(shots)} solved examples)")
    return Shown(
        pictures=_small_tiles(
            [part.picture for part in parts if isinstance(part, ReadImage | DrawnImage)],
            "shown to the model",
        ),
        question=" ".join(asked),
        answer=record.example.answer,
        understood=record.understood or "",
        drawn=[
            *_small_tiles(record.reply.pictures, "drawn"),
            *_small_tiles([] if truth is None else [truth], "as it should be"),
        ],
    )


def _small_tiles(pictures: Sequence[Picture], caption: str) -> list[Tile]:
    """Pictures of which those of many pixels are made smaller; one that is broken is left out."""
    tiles = []
    for picture in pictures:
        with contextlib.suppress(DataError):
            data, suffix = encode_small(to_pillow(picture))
            tiles.append(Tile(source=data_url(data, suffix), caption=caption))
    return tiles


def data_url(data: bytes, suffix: str) -> str:
    """A picture's bytes inside a page.

    Args:
        data: as in a file.
        suffix: of that file, "png" or "jpg".
    """
    kind = "jpeg" if suffix == "jpg" else suffix
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
