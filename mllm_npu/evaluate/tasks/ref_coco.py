"""RefCOCO, RefCOCO+ and RefCOCOg: where in the picture is what a phrase names?

Source: Yu et al. 2016 (RefCOCO and RefCOCO+, arXiv 1608.00272), Mao et al. 2016 (RefCOCOg, arXiv
1511.02283); the jsonl files and the measure of Qwen-VL's evaluation, the question of LLaVA-1.5's
training data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from mllm_npu.errors import ConfigError, DataError
from mllm_npu.evaluate.benchmark_files import BenchmarkFiles, Row, check_names
from mllm_npu.evaluate.benchmark_pictures import PictureFiles, picture_from_cell
from mllm_npu.evaluate.benchmark_rows import read_field, read_text, split_rows
from mllm_npu.evaluate.figure import Figure
from mllm_npu.evaluate.grouped import grouped_figures
from mllm_npu.evaluate.prompt import Frame, put_question
from mllm_npu.evaluate.task import Example, Record, Task
from mllm_npu.inference.events import Reply
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.raster import Picture

Coordinates = Literal["shares", "thousandths", "pixels"]
"""What numbers in a reply are: shares of the picture's sides, thousandths of them, or pixels."""

SPLITS = (
    *("refcoco_val", "refcoco_testA", "refcoco_testB"),
    *("refcoco+_val", "refcoco+_testA", "refcoco+_testB"),
    *("refcocog_val", "refcocog_test"),
)

_FOLDERS = {"refcoco": "RefCOCO", "refcoco+": "RefCOCOplus", "refcocog": "RefCOCOg"}
_LEAST_OVERLAP = 0.5 - 1e-9
"""Half, whichever way the shares of a picture's sides are rounded."""
_SENTENCE = "{sentence}"
_LAYOUT = """\
ref_coco/
├── refcoco_val.jsonl, refcoco+_testA.jsonl, refcocog_test.jsonl, ...
│                                     image, sent, bbox (left, top, right, bottom in pixels)
└── train2014/COCO_train2014_000000581857.jpg, ...
or parquet files with the pictures in them:
└── RefCOCO/data/val-*.parquet, RefCOCOplus/..., RefCOCOg/..."""

_NUMBER = r"\s*(-?(?:\d+\.?\d*|\.\d+))\s*"
_BOX = re.compile(rf"[\[(]{_NUMBER},{_NUMBER}(?:[\])]\s*,?\s*[\[(]|,){_NUMBER},{_NUMBER}[\])]")
"""[a, b, c, d] or (a, b), (c, d), in either kind of brackets."""

Corners = tuple[float, float, float, float]
"""Left, top, right and bottom of a box, in pixels."""

_Named = tuple[str, str, Picture, Corners]
"""Name of an example, phrase, picture, and the right box."""


class RefCoco(Task):
    """A box for a phrase; right where it shares half of the area that both cover.

    The box is the first of the reply's location tokens, else the first four numbers in brackets.
    The main number is the mean over splits.

    Args:
        data: folder or zip with jsonl files and pictures, or with rows as parquet.
        frame: how a question is put.
        options: how replies are made.
        splits: which of `SPLITS`.
        question: with {sentence} where the phrase stands.
        coordinates: what numbers in a reply are.

    Raises:
        ConfigError: a split or a kind of coordinates that does not exist, or a question without
            the phrase.
    """

    name = "ref_coco"
    title = "RefCOCO, RefCOCO+, RefCOCOg: boxes with an IoU from 0.5, mean of the splits"
    citation = (
        "Yu et al. 2016, arXiv 1608.00272; Mao et al. 2016, arXiv 1511.02283. Annotations on COCO "
        "(CC BY 4.0), pictures under their owners' Flickr licences."
    )

    def __init__(
        self,
        *,
        data: str | Path,
        frame: Frame = "chat",
        options: GenerationOptions,
        splits: Sequence[str] = SPLITS,
        question: str = (
            "Please provide the bounding box coordinate of the region this sentence describes: "
            "{sentence}"
        ),
        coordinates: Coordinates = "shares",
    ) -> None:
        if not splits or set(splits) - set(SPLITS):
            raise ConfigError(
                f"The splits {list(splits)} of RefCOCO were asked for; there are {list(SPLITS)}. "
                "Give at least one of these."
            )
        if coordinates not in get_args(Coordinates) or _SENTENCE not in question:
            raise ConfigError(
                f"RefCOCO was asked for with coordinates={coordinates!r} and the question "
                f"{question!r}. Give one of {list(get_args(Coordinates))}, and a question with "
                f"{_SENTENCE}."
            )
        self.data, self.frame, self.options = Path(data), frame, options
        self.splits, self.question, self.coordinates = tuple(splits), question, coordinates

    def examples(self) -> Sequence[Example]:
        """Every phrase of every split."""
        files = BenchmarkFiles(self.data, layout=_LAYOUT)
        pictures = PictureFiles(files)
        examples: list[Example] = []
        for split in self.splits:
            has_lines = files.has(f"{split}.jsonl")
            saved = [] if has_lines else _tables(files, split)
            read = _saved_boxes(files, saved) if saved else _listed_boxes(files, split, pictures)
            examples += [self._to_example(split, *named) for named in read]
        check_names([example.name for example in examples], str(self.data))
        return examples

    def score(self, example: Example, reply: Reply) -> float:
        """1 for a box that overlaps enough."""
        found, right = self._read_box(example, reply), _to_corners(example.facts["box"])
        return float(found is not None and _overlap(found, right) >= _LEAST_OVERLAP)

    def explain(self, example: Example, reply: Reply) -> str | None:
        """The box in pixels; None where there is none."""
        found = self._read_box(example, reply)
        return None if found is None else _box_text(found)

    def figures(self, records: Sequence[Record]) -> Sequence[Figure]:
        """The mean, the mean of each data set, and each split."""
        return grouped_figures(
            records,
            name=self.name,
            title=self.title,
            citation=self.citation,
            average="macro",
            inner="macro",
        )

    def _read_box(self, example: Example, reply: Reply) -> Corners | None:
        width, height = (int(side) for side in example.facts["size"].split())
        if reply.boxes:
            box = reply.boxes[0]
            return box.x0 * width, box.y0 * height, box.x1 * width, box.y1 * height
        found = _BOX.search(reply.text)
        if found is None:
            return None
        units = {
            "shares": (width, height),
            "thousandths": (width / 1000, height / 1000),
            "pixels": (1, 1),
        }[self.coordinates]
        x0, y0, x1, y1 = (float(number) * units[n % 2] for n, number in enumerate(found.groups()))
        return x0, y0, x1, y1

    def _to_example(
        self, split: str, name: str, phrase: str, picture: Picture, box: Corners
    ) -> Example:
        question = self.question.replace(_SENTENCE, phrase)
        return Example(
            name=f"{split}/{name}",
            conversation=put_question([picture, question], frame=self.frame),
            answer=_box_text(box),
            options=self.options,
            groups=(split.partition("_")[0], split),
            facts={
                "box": " ".join(map(str, box)),
                "size": f"{picture.width} {picture.height}",
            },
        )


def _tables(files: BenchmarkFiles, split: str) -> list[str]:
    """Parquet files of a split, as the hub names them."""
    kind, _, part = split.partition("_")
    folder = _FOLDERS[kind]
    for pattern in (f"{folder}/data/{part}-*.parquet", f"{folder}/{part}-*.parquet"):
        if files.has(pattern):
            return files.find(pattern)
    return []


def _listed_boxes(files: BenchmarkFiles, split: str, pictures: PictureFiles) -> Iterator[_Named]:
    [name, *others] = files.find(f"{split}.jsonl")
    if others:
        raise files.lacking(f"there are {name} and {others}; leave one")
    for number, row in enumerate(files.rows(name)):
        where = f"{name} row {number}"
        file = PurePosixPath(read_text(row, "image", where)).name
        picture = pictures.open(file, where)
        box = _check(_read_numbers(row, where), where)
        yield str(number), read_text(row, "sent", where), picture, box


def _saved_boxes(files: BenchmarkFiles, tables: Sequence[str]) -> Iterator[_Named]:
    """A row has all phrases for one box: left, top, width and height."""
    for where, row in split_rows(files, tables):
        picture = picture_from_cell(read_field(row, "image", where), where)
        x, y, width, height = _read_numbers(row, where)
        box = _check((x, y, x + width, y + height), where)
        for number, phrase in enumerate(read_field(row, "answer", where)):
            yield f"{read_text(row, 'question_id', where)}/{number}", str(phrase), picture, box


def _read_numbers(row: Row, where: str) -> Corners:
    numbers = read_field(row, "bbox", where)
    try:
        a, b, c, d = map(float, numbers)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{where}: a box of four numbers is expected, it is {numbers!r}. Download it again."
        ) from error
    return a, b, c, d


def _check(box: Corners, where: str) -> Corners:
    if box[2] <= box[0] or box[3] <= box[1]:
        raise DataError(f"{where}: the box {box} has no area. Download it again.")
    return box


def _to_corners(text: str) -> Corners:
    x0, y0, x1, y1 = map(float, text.split())
    return x0, y0, x1, y1


def _box_text(box: Corners) -> str:
    return f"[{', '.join(f'{edge:g}' for edge in box)}]"


def _overlap(one: Corners, other: Corners) -> float:
    """Area of both over area of either (IoU); 0 for corners in the wrong order."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / (sum(areas) - width * height)
