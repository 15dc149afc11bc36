"""CMMMU: Chinese college questions over pictures: choose, judge, or fill in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path, PurePosixPath
from random import Random
from typing import Literal

from mllm_npu.errors import DataError
from mllm_npu.evaluate.benchmark_files import BenchmarkFiles, Row, check_names
from mllm_npu.evaluate.benchmark_pictures import PictureFiles, picture_from_cell
from mllm_npu.evaluate.benchmark_rows import optional_text, read_text, split_rows, split_tables
from mllm_npu.evaluate.choices import Ask, likeliest, list_choices
from mllm_npu.evaluate.cmmmu_answers import (
    LETTERS,
    RIGHT,
    WRONG,
    normalize,
    parse_judgement,
    parse_letters,
    read_filled,
)
from mllm_npu.evaluate.figure import Figure
from mllm_npu.evaluate.grouped import grouped_figures
from mllm_npu.evaluate.hidden_answers import answered_figure
from mllm_npu.evaluate.interleaved import weave
from mllm_npu.evaluate.open_answer import has_right_answer
from mllm_npu.evaluate.prompt import Frame, put_question
from mllm_npu.evaluate.task import Example, Record, Task
from mllm_npu.inference.events import Reply
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.raster import Picture

_LAYOUT = """\
cmmmu-data-val/business/business.jsonl
cmmmu-data-val/business/q_00475_001.png
... (six disciplines, from CMMMU-Benchmark/CMMMU of GitHub)
or the tables of a saved Hugging Face data set with the pictures in them:
data/val-00000-of-00001.parquet"""

_CHOOSE, _JUDGE, _FILL_IN = "选择", "判断", "填空"
_INTRO = {
    _CHOOSE: (
        "请回答以下多项选择题，并选出正确选项。这些题目可能包括单选和多选题型。如果所提供的信息不足以"
        "确定一个明确的答案，那么请根据可用的数据和你的判断来选择最可能正确的选项。"
    ),
    _JUDGE: (
        "请回答以下判断题，并根据题目描述和所给的信息来判断问题中陈述的对错。如果信息不完整或不足以"
        "作出绝对判断，请运用你的逻辑推理和现有信息来做出最可能的判断。"
    ),
    _FILL_IN: (
        "请回答以下填空题，并根据题目的要求和所提供的信息来给出最恰当的答案。如果信息不足以确切回答，"
        "那么请依据现有的数据和你的推理能力来填写最合理的答案。"
    ),
}
_MARK = r'<img="([^"]*)">'
_MOST_PICTURES = 5
_HIDDEN = ("", "?")

LookUp = Callable[[str], Picture]
"""Finds a picture by the name that a question shows it under."""


class CMMMU(Task):
    """Names one or more letters, says whether a statement is right, or fills in what is missing.

    Pictures stand where question and choices have ``<img="...">``. Replies are read as
    `mllm_npu.evaluate.cmmmu_answers` says. A reply to a choice or a statement that says nothing is
    counted as unread and then guessed, as in the official script; here the guess is fixed by seed
    and question. Averages are over questions.

    Args:
        data: folder or zip in the published layout, or a saved data set.
        options: how replies are made.
        split: "val", "dev", or "test", whose answers are not published: then a file to be submitted
            is written.
        by: "generation" of a reply; or "likelihood" of the letters, in all combinations, and of 对
            and 错. What is filled in is always generated.
        frame: see `mllm_npu.evaluate.prompt.Frame`.
        seed: of guesses.

    Source: eval/utils/eval_utils.py, eval/eval_script.py and eval/README.md of
        github.com/CMMMU-Benchmark/CMMMU; prompts as in lmms_eval/tasks/cmmmu/utils.py of
        github.com/EvolvingLMMs-Lab/lmms-eval.
    """

    name = "cmmmu"
    title = "CMMMU"
    citation = (
        "Zhang et al. 2024, CMMMU: A Chinese Massive Multi-discipline Multimodal Understanding "
        "Benchmark, arXiv:2401.11944. Data: published without a licence."
    )

    def __init__(
        self,
        *,
        data: str | Path,
        options: GenerationOptions,
        split: Literal["dev", "val", "test"] = "val",
        by: Ask = "generation",
        frame: Frame = "chat",
        seed: int = 42,
    ) -> None:
        self.data, self.options, self.split = Path(data), options, split
        self.by, self.frame, self.seed = by, frame, seed

    def examples(self) -> Sequence[Example]:
        """All questions of the split, discipline by discipline as the files are ordered."""
        files = BenchmarkFiles(self.data, layout=_LAYOUT)
        made = [self._example(*found) for found in _read_rows(files, self.split)]
        check_names([example.name for example in made], str(self.data))
        return made

    def score(self, example: Example, reply: Reply) -> float:
        """1 for exactly the right letters, the right judgement, or the right words."""
        kind = example.facts["type"]
        if not example.answer:
            return 0.0
        if kind == _FILL_IN:
            right = normalize(example.answer, example.answer)
            return float(has_right_answer(read_filled(reply.text, example.answer), right))
        understood = self.explain(example, reply)
        if understood is None:
            among = tuple(LETTERS) if kind == _CHOOSE else (RIGHT, WRONG)
            understood = Random(f"{self.seed} {example.name}").choice(among)
        return float(understood == example.answer)

    def explain(self, example: Example, reply: Reply) -> str | None:
        """Letters, judgement or words; None where the reply says none."""
        facts = example.facts
        if reply.choices:
            return reply.choices[likeliest(reply)].text.strip()
        if facts["type"] == _CHOOSE:
            return parse_letters(reply.text, {letter: facts[letter] for letter in LETTERS})
        if facts["type"] == _JUDGE:
            return parse_judgement(reply.text)
        if not example.answer:
            return reply.text.strip() or None
        return " | ".join(map(str, read_filled(reply.text, example.answer))) or None

    def figures(self, records: Sequence[Record]) -> Sequence[Figure]:
        """Over all questions, of the six disciplines, of their subjects."""
        if not any(record.example.answer for record in records):
            title = f"{self.title} {self.split}"
            return [answered_figure(records, name=self.name, title=title, citation=self.citation)]
        return grouped_figures(records, name=self.name, title=self.title, citation=self.citation)

    def submissions(self, records: Sequence[Record]) -> Mapping[str, str]:
        """Replies as the official server takes them, one JSON a line."""
        lines = (
            {
                "id": int(record.example.name),
                "type": record.example.facts["type"],
                "response": (
                    record.understood or "" if record.reply.choices else record.reply.text
                ),
            }
            for record in records
        )
        texts = (json.dumps(line, ensure_ascii=False) for line in lines)
        return {f"cmmmu_{self.split}.jsonl": "".join(f"{text}\n" for text in texts)}

    def _example(self, row: Row, where: str, look_up: LookUp) -> Example:
        kind, name = read_text(row, "type", where), read_text(row, "id", where)
        if kind not in _INTRO or not name.isdigit():
            raise DataError(
                f"{where}: type {kind!r} and id {name!r} are there, a type of {list(_INTRO)} and a "
                "number are expected. Download it again."
            )
        choices = _read_choices(row, where) if kind == _CHOOSE else ()
        answer = optional_text(row, "answer").strip()
        prompt = _make_prompt(kind, read_text(row, "question", where), choices)
        return Example(
            name=name,
            conversation=put_question(weave(prompt, _MARK, look_up), frame=self.frame),
            answer="" if answer in _HIDDEN else answer,
            options=self.options,
            choices=_CANDIDATES[kind] if self.by == "likelihood" else (),
            groups=(read_text(row, "category", where), read_text(row, "subcategory", where)),
            facts={"type": kind, **dict(zip(LETTERS, choices, strict=False))},
        )


_CANDIDATES: Mapping[str, tuple[str, ...]] = {
    _CHOOSE: tuple(
        "".join(letters)
        for number in range(1, len(LETTERS) + 1)
        for letters in combinations(LETTERS, number)
    ),
    _JUDGE: (RIGHT, WRONG),
    _FILL_IN: (),
}
"""What is weighed as a reply."""


def _read_rows(files: BenchmarkFiles, split: str) -> Iterator[tuple[Row, str, LookUp]]:
    """Rows with the words that say where they stand and what finds their pictures by name."""
    pattern = f"cmmmu-data-{split}/*/*.jsonl"
    if not files.has(pattern):
        for where, row in split_rows(files, split_tables(files, split)):
            yield row, where, partial(_find_in_row, row, where)
        return
    pictures = PictureFiles(files)
    for name in files.find(pattern):
        folder = PurePosixPath(name).parent
        for where, row in split_rows(files, [name]):
            yield row, where, partial(_find_beside, pictures, folder, where)


def _find_beside(pictures: PictureFiles, folder: PurePosixPath, where: str, name: str) -> Picture:
    return pictures.open(str(folder / name), where)


def _find_in_row(row: Row, where: str, name: str) -> Picture:
    for number in range(1, _MOST_PICTURES + 1):
        if row.get(f"image_{number}_filename") == name:
            return picture_from_cell(row.get(f"image_{number}"), f"{where}, image_{number}")
    raise DataError(f"{where}: the question shows {name!r}, which is not there. Download it again.")


def _read_choices(row: Row, where: str) -> tuple[str, ...]:
    choices = tuple(optional_text(row, f"option{number}") for number in range(1, len(LETTERS) + 1))
    if not any(choices):
        raise DataError(f"{where}: there are no choices, option1 and so on. Download it again.")
    return choices


def _make_prompt(kind: str, question: str, choices: Sequence[str]) -> str:
    listed = list_choices(choices, "({letter}) {text}\n")
    shown = f"选项：\n{listed}\n" if choices else ""
    return f"{_INTRO[kind]}\n\n问题：{question}\n{shown}正确答案：\n"
