"""Questions of SEED-Bench-2 as its published files hold them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from mllm_npu.errors import DataError
from mllm_npu.evaluate.benchmark_files import BenchmarkFiles, Row
from mllm_npu.evaluate.benchmark_pictures import PictureFiles, picture_from_cell
from mllm_npu.evaluate.benchmark_rows import read_field, read_text, split_rows, split_tables
from mllm_npu.processing.raster import Picture

Level = Literal["L1", "L2", "L3"]
LEVELS: tuple[Level, ...] = ("L1", "L2", "L3")

Kind = Literal["choose a text", "draw a caption", "draw what is next", "write and draw"]

_LAYOUT = """\
SEED-Bench_v2_level1_2_3.json
cc3m-image/1454426_2591111986
SEED-Bench-2-image/task17/SD_image/SD_IMG_00235_1.png
or the tables of a saved Hugging Face data set with the pictures in them:
data/test-00000-of-00001.parquet"""
_JSON = "SEED-Bench_v2*.json"
_FOLDERS = {"cc3m": "cc3m-image", "SEED-Bench v2": "SEED-Bench-2-image"}

_NUM_CHOICES = 4
_KINDS: dict[int, Kind] = {25: "draw a caption", 26: "draw what is next", 27: "write and draw"}
DIMENSIONS = (
    "Scene Understanding",
    "Instance Identity",
    "Instance Attributes",
    "Instance Location",
    "Instances Counting",
    "Spatial Relation",
    "Instance Interaction",
    "Visual Reasoning",
    "Text Understanding",
    "Celebrity Recognition",
    "Landmark Recognition",
    "Chart Understanding",
    "Visual Referring Expression",
    "Science Knowledge",
    "Emotion Recognition",
    "Visual Mathematics",
    "Difference Spotting",
    "Meme Comprehension",
    "Global Video Understanding",
    "Action Recognition",
    "Action Prediction",
    "Procedure Understanding",
    "In-Context Captioning",
    "Interleaved Image-Text Analysis",
    "Text-to-Image Generation",
    "Next Image Prediction",
    "Text-Image Creation",
)
"""Names of the 27 kinds of questions; the first is number 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedQuestion:
    """A question with four choices.

    Args:
        name: unique.
        where: it stands, for messages.
        kind: what is asked for.
        level: the least capability it needs.
        subpart: its kind of input and output.
        dimension: what it is about, one of `DIMENSIONS`.
        text: with a mark for each picture, or with none.
        shown: pictures of the question, a video's frames in order.
        texts: that are chosen from; empty where only pictures are.
        pictures: that are chosen from; empty where only texts are.
        answer: letter of the right choice.
    """

    name: str
    where: str
    kind: Kind
    level: Level
    subpart: str
    dimension: str
    text: str
    shown: tuple[Picture, ...]
    texts: tuple[str, ...]
    pictures: tuple[Picture, ...]
    answer: str


def read_questions(path: str | Path, levels: Sequence[Level]) -> Iterator[SeedQuestion]:
    """Questions of some levels in the order of the file.

    Args:
        path: folder or zip with the published JSON and pictures, or a saved data set.
        levels: to be read.

    Raises:
        DataError: files or fields are missing or broken.
    """
    files = BenchmarkFiles(path, layout=_LAYOUT)
    if not files.has(_JSON):
        for where, row in split_rows(files, split_tables(files, "test")):
            if read_text(row, "level", where) in levels:
                yield _to_question(row, where, _pictures_in(row, where))
        return
    pictures = PictureFiles(files)
    for name in files.find(_JSON):
        content = files.read_json(name)
        rows = content.get("questions") if isinstance(content, dict) else content
        if not isinstance(rows, list):
            raise files.lacking(f'{name} has no list "questions"')
        for number, row in enumerate(rows, 1):
            where = f"{name} question {number}"
            if read_text(row, "level", where) in levels:
                yield _to_question(row, where, _pictures_beside(row, where, pictures))


def _pictures_in(row: Row, where: str) -> tuple[Picture, ...]:
    cells = read_field(row, "image", where)
    held = cells if isinstance(cells, list) else [cells]
    return tuple(picture_from_cell(cell, where) for cell in held)


def _pictures_beside(row: Row, where: str, pictures: PictureFiles) -> tuple[Picture, ...]:
    names = read_field(row, "data_id", where)
    folder = _FOLDERS.get(read_text(row, "data_source", where))
    if folder is None:
        raise DataError(
            f"{where}: data_source is {row['data_source']!r}, it should be one of "
            f"{sorted(_FOLDERS)}. Is this SEED-Bench-2?"
        )
    found = []
    for name in names if isinstance(names, list) else [names]:
        # The folder tells pictures of one name apart; people also unpack it under another name.
        in_folder = str(PurePosixPath(folder) / name)
        found.append(pictures.open(in_folder if pictures.has(in_folder) else name, where))
    return tuple(found)


def _to_question(row: Row, where: str, pictures: tuple[Picture, ...]) -> SeedQuestion:
    number = read_text(row, "question_type_id", where)
    if not number.isdigit() or not 1 <= int(number) <= len(DIMENSIONS):
        raise DataError(
            f"{where}: question_type_id is {number!r}, it should be a number from 1 to "
            f"{len(DIMENSIONS)}. Is this SEED-Bench-2?"
        )
    answer = read_text(row, "answer", where)
    if answer not in ("A", "B", "C", "D"):
        raise DataError(f"{where}: the answer is {answer!r}, it should be A, B, C or D.")
    kind = _KINDS.get(int(number), "choose a text")
    shown, choices = (pictures, ()) if kind == "choose a text" else _split(pictures, where)
    texts = tuple(read_text(row, f"choice_{letter}", where) for letter in "abcd")
    level: Level = row["level"]
    return SeedQuestion(
        name=read_text(row, "question_id", where),
        where=where,
        kind=kind,
        level=level,
        subpart=read_text(row, "subpart", where),
        dimension=DIMENSIONS[int(number) - 1],
        text=read_text(row, "question", where),
        shown=shown,
        texts=texts if kind in ("choose a text", "write and draw") else (),
        pictures=choices,
        answer=answer,
    )


def _split(
    pictures: tuple[Picture, ...], where: str
) -> tuple[tuple[Picture, ...], tuple[Picture, ...]]:
    """Pictures of the question, and the four that are chosen from, which come last."""
    if len(pictures) < _NUM_CHOICES:
        raise DataError(
            f"{where}: {_NUM_CHOICES} pictures to choose from are expected, there are "
            f"{len(pictures)}. Download it again."
        )
    return pictures[:-_NUM_CHOICES], pictures[-_NUM_CHOICES:]
