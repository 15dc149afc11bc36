"""COCO captions: describe a picture in a sentence, compared with the five of people.

Source: Chen et al. 2015 (arXiv 1504.00325); the splits of Karpathy and Fei-Fei 2015 (arXiv
1412.2306); the question as lmms-eval asks it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from mllm_npu.errors import DataError
from mllm_npu.evaluate.benchmark_files import BenchmarkFiles, Row, check_names
from mllm_npu.evaluate.benchmark_pictures import PictureFiles, picture_from_cell
from mllm_npu.evaluate.benchmark_rows import read_field, read_text, split_rows, split_tables
from mllm_npu.evaluate.captions import (
    LONGEST_GRAM,
    BleuCounts,
    bleu,
    caption_words,
    cider_d,
    count_bleu,
    rouge_l,
)
from mllm_npu.evaluate.figure import Figure, mean_figure, statistic_figure
from mllm_npu.evaluate.prompt import Frame, put_question
from mllm_npu.evaluate.task import Example, Record, Task, count_unread
from mllm_npu.inference.events import Reply
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.raster import Picture

_LAYOUT = """\
coco_caption/                         (or parquet files val-*.parquet)
├── dataset_coco.json                 the splits karpathy_test and karpathy_val
├── annotations/captions_val2014.json the split val2014
└── val2014/COCO_val2014_000000391895.jpg, ..."""

_KARPATHY = "karpathy_"
_CAPTIONS = "\n"
"""Between the captions of people."""

_Shown = tuple[str, Picture, Sequence[str]]
"""Number of a picture, the picture, and captions of people."""


class CocoCaption(Task):
    """One sentence; CIDEr-D over all, with BLEU-1 to BLEU-4 and ROUGE-L.

    CIDEr-D and BLEU are numbers of a whole split; a record's score is its ROUGE-L. METEOR and SPICE
    need Java and are left out; the submission can be graded with them. Words are cut as
    `caption_words` says.

    Args:
        data: folder or zip with annotations and pictures, or rows as parquet.
        frame: how a question is put.
        options: how replies are made.
        split: "karpathy_test", "karpathy_val", "val2014" or "val2017".
        question: what stands after the picture; "" asks nothing.
    """

    name = "coco_caption"
    title = "COCO captions: CIDEr-D"
    citation = (
        "Chen et al. 2015, arXiv 1504.00325; Karpathy and Fei-Fei 2015, arXiv 1412.2306. Captions "
        "CC BY 4.0, pictures under their owners' Flickr licences."
    )

    def __init__(
        self,
        *,
        data: str | Path,
        frame: Frame = "chat",
        options: GenerationOptions,
        split: str = "karpathy_test",
        question: str = "Provide a one-sentence caption for the provided image.",
    ) -> None:
        self.data, self.frame, self.options = Path(data), frame, options
        self.split, self.question = split, question

    def examples(self) -> Sequence[Example]:
        """Every picture of the split."""
        files, official = BenchmarkFiles(self.data, layout=_LAYOUT), f"captions_{self.split}.json"
        if self.split.startswith(_KARPATHY):
            read = _karpathy_pictures(files, self.split.removeprefix(_KARPATHY))
        elif not files.has(official) and (files.has("*.parquet") or files.has("*.arrow")):
            read = _saved_pictures(files, self.split.rstrip("0123456789"))
        else:
            read = _annotated_pictures(files, official)
        examples = [self._to_example(*shown) for shown in read]
        if not examples:
            raise files.lacking(f"the split {self.split!r} has no picture")
        check_names([example.name for example in examples], str(self.data))
        return examples

    def score(self, example: Example, reply: Reply) -> float:
        """ROUGE-L."""
        return rouge_l(caption_words(reply.text), _references(example))

    def explain(self, example: Example, reply: Reply) -> str | None:
        """The caption on one line; None where it has no word."""
        return " ".join(reply.text.split()) if caption_words(reply.text) else None

    def figures(self, records: Sequence[Record]) -> Sequence[Figure]:
        """CIDEr-D, then BLEU from 4 to 1, then ROUGE-L."""
        captions = [caption_words(record.reply.text) for record in records]
        references = [_references(record.example) for record in records]
        pairs = list(zip(captions, references, strict=True))
        counts = [count_bleu(caption, own) for caption, own in pairs]
        return [
            mean_figure(
                name=self.name,
                title=self.title,
                values=cider_d(captions, references),
                citation=self.citation,
                num_unread=count_unread(records),
            ),
            *(_bleu_figure(self.name, size, counts) for size in range(LONGEST_GRAM, 0, -1)),
            mean_figure(
                name=f"{self.name}/rouge_l",
                title="ROUGE-L",
                values=[rouge_l(caption, own) for caption, own in pairs],
                level=1,
            ),
        ]

    def submissions(self, records: Sequence[Record]) -> Mapping[str, str]:
        """Captions as the official server and scripts take them."""
        rows = [
            {"image_id": int(record.example.name), "caption": record.understood or ""}
            for record in records
        ]
        return {f"captions_{self.split}_mllm-npu_results.json": json.dumps(rows) + "\n"}

    def _to_example(self, number: str, picture: Picture, captions: Sequence[str]) -> Example:
        if not captions:
            raise DataError(
                f"Picture {number} in {self.data} has no caption of people. Take a split whose "
                "captions are published, or download it again."
            )
        return Example(
            name=number,
            conversation=put_question([picture, self.question], frame=self.frame),
            answer=_CAPTIONS.join(" ".join(str(caption).split()) for caption in captions),
            options=self.options,
        )


def _references(example: Example) -> list[tuple[str, ...]]:
    return [caption_words(caption) for caption in example.answer.split(_CAPTIONS)]


def _bleu_figure(name: str, size: int, counts: Sequence[BleuCounts]) -> Figure:
    return statistic_figure(
        name=f"{name}/bleu_{size}",
        title=f"BLEU-{size}",
        units=counts,
        statistic=lambda units: bleu(units)[size - 1],
        level=1,
    )


def _karpathy_pictures(files: BenchmarkFiles, split: str) -> Iterator[_Shown]:
    pictures, name = PictureFiles(files), files.find("dataset_coco.json")[0]
    for where, row in _listed(files, name, "images"):
        if read_text(row, "split", where) == split:
            captions = [
                read_text(each, "raw", where) for each in read_field(row, "sentences", where)
            ]
            picture = pictures.open(read_text(row, "filename", where), where)
            yield read_text(row, "cocoid", where), picture, captions


def _annotated_pictures(files: BenchmarkFiles, file: str) -> Iterator[_Shown]:
    pictures, name = PictureFiles(files), files.find(file)[0]
    captions: dict[str, list[str]] = {}
    for where, row in _listed(files, name, "annotations"):
        own = captions.setdefault(read_text(row, "image_id", where), [])
        own.append(read_text(row, "caption", where))
    for where, row in _listed(files, name, "images"):
        number = read_text(row, "id", where)
        picture = pictures.open(read_text(row, "file_name", where), where)
        yield number, picture, captions.get(number, [])


def _saved_pictures(files: BenchmarkFiles, split: str) -> Iterator[_Shown]:
    for where, row in split_rows(files, split_tables(files, split)):
        stem = PurePosixPath(read_text(row, "file_name", where)).stem
        number = re.search(r"\d+$", stem)
        if number is None:
            raise DataError(f"{where}: {stem!r} does not end with the number of a picture.")
        picture = picture_from_cell(read_field(row, "image", where), where)
        yield str(int(number[0])), picture, read_field(row, "answer", where)


def _listed(files: BenchmarkFiles, name: str, key: str) -> Iterator[tuple[str, Row]]:
    content = files.read_json(name)
    rows = content.get(key) if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise files.lacking(f"{name} holds no list under {key!r}")
    for number, row in enumerate(rows):
        yield f"{name} {key} {number}", row
