"""TextVQA: questions about what is written in a picture, compared with the answers of ten people.

Source: Singh et al. 2019 (TextVQA, arXiv 1904.08920); the hint after the question is LLaVA-1.5's
(arXiv 2310.03744).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mllm_npu.errors import DataError
from mllm_npu.evaluate.benchmark_files import BenchmarkFiles, Row, check_names
from mllm_npu.evaluate.benchmark_pictures import PictureFiles, picture_from_cell
from mllm_npu.evaluate.benchmark_rows import read_field, read_text, split_rows, split_tables
from mllm_npu.evaluate.prompt import Frame, put_question
from mllm_npu.evaluate.task import Example, Record, Task
from mllm_npu.evaluate.vqa_answer import normal_answer, vqa_accuracy
from mllm_npu.inference.events import Reply
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.raster import Picture

_LAYOUT = """\
text_vqa/                             (or parquet files validation-*.parquet)
├── TextVQA_0.5.1_val.json            {"data": [{question_id, image_id, question, answers}, ...]}
└── train_images/003a8ae2ef43b901.jpg (pictures of val are among those of train)"""

_ANSWERS = "\n"
"""Between the answers of people."""


class TextVqa(Task):
    """A word or phrase; how far ten people agree with it, each left out in turn.

    Args:
        data: folder or zip with questions and pictures, or rows as parquet.
        frame: how a question is put.
        options: how replies are made.
        split: "val", or "train"; answers of "test" are not published.
        hint: a line after the question; "" adds none.
    """

    name = "text_vqa"
    title = "TextVQA: agreement with ten people"
    citation = (
        "Singh et al. 2019, arXiv 1904.08920. Questions and answers CC BY 4.0, pictures of Open "
        "Images (CC BY 2.0)."
    )

    def __init__(
        self,
        *,
        data: str | Path,
        frame: Frame = "chat",
        options: GenerationOptions,
        split: str = "val",
        hint: str = "Answer the question using a single word or phrase.",
    ) -> None:
        self.data, self.frame, self.options = Path(data), frame, options
        self.split, self.hint = split, hint

    def examples(self) -> Sequence[Example]:
        """Every question of the split."""
        files = BenchmarkFiles(self.data, layout=_LAYOUT)
        is_saved = files.has("*.parquet") or files.has("*.arrow")
        read = _saved_rows if is_saved else _released_rows
        examples = [
            self._to_example(where, row, picture) for where, row, picture in read(files, self.split)
        ]
        check_names([example.name for example in examples], str(self.data))
        return examples

    def score(self, example: Example, reply: Reply) -> float:
        """Agreement, 0..1."""
        return vqa_accuracy(reply.text, example.answer.split(_ANSWERS))

    def explain(self, example: Example, reply: Reply) -> str | None:
        """The reply in the form that is compared; None where nothing is left of it."""
        return normal_answer(reply.text) or None

    def submissions(self, records: Sequence[Record]) -> Mapping[str, str]:
        """Answers as the challenge's server takes them."""
        rows = [
            {"question_id": int(record.example.name), "answer": record.reply.text.strip()}
            for record in records
        ]
        return {f"text_vqa_{self.split}.json": json.dumps(rows) + "\n"}

    def _to_example(self, where: str, row: Row, picture: Picture) -> Example:
        question, answers = read_text(row, "question", where), row.get("answers")
        if not answers or len(answers) < 2:
            raise DataError(
                f"{where}: the answers of people are expected, there are {answers!r}. Take the "
                "split val, or download it again."
            )
        text = f"{question}\n{self.hint}" if self.hint else question
        return Example(
            name=read_text(row, "question_id", where),
            conversation=put_question([picture, text], frame=self.frame),
            answer=_ANSWERS.join(str(answer).replace(_ANSWERS, " ") for answer in answers),
            options=self.options,
        )


def _released_rows(files: BenchmarkFiles, split: str) -> Iterator[tuple[str, Row, Picture]]:
    pictures = PictureFiles(files)
    [name, *others] = files.find(f"TextVQA_*_{split}.json")
    if others:
        raise files.lacking(f"there are {name} and {others}; leave one")
    content = files.read_json(name)
    rows = content.get("data") if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise files.lacking(f"{name} holds no list under 'data'")
    for number, row in enumerate(rows):
        where = f"{name} row {number}"
        yield where, row, pictures.open(f"{read_text(row, 'image_id', where)}.jpg", where)


def _saved_rows(files: BenchmarkFiles, split: str) -> Iterator[tuple[str, Row, Picture]]:
    for where, row in split_rows(files, split_tables(files, split)):
        yield where, row, picture_from_cell(read_field(row, "image", where), where)
