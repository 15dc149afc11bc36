"""MMMU: questions of 30 college subjects over one or more pictures, in choices or open."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Literal

from mllm_npu.errors import DataError
from mllm_npu.evaluate.benchmark_files import BenchmarkFiles, Row, check_names
from mllm_npu.evaluate.benchmark_pictures import picture_from_cell
from mllm_npu.evaluate.benchmark_rows import optional_text, read_text, split_rows, split_tables
from mllm_npu.evaluate.choices import LETTERS, Ask, likeliest, list_choices
from mllm_npu.evaluate.figure import Figure
from mllm_npu.evaluate.grouped import grouped_figures
from mllm_npu.evaluate.hidden_answers import answered_figure
from mllm_npu.evaluate.interleaved import weave
from mllm_npu.evaluate.open_answer import (
    Answer,
    Reading,
    has_right_answer,
    read_answers,
    read_number,
)
from mllm_npu.evaluate.prompt import Frame, put_question
from mllm_npu.evaluate.task import Example, Record, Task
from mllm_npu.inference.events import Reply
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.raster import Picture

_LAYOUT = """\
Accounting/validation-00000-of-00001.parquet
Agriculture/validation-00000-of-00001.parquet
... (MMMU/MMMU of Hugging Face, all 30 subjects; or data/validation-00000-of-00001.parquet)"""

_DISCIPLINES = {
    "Art and Design": "Art Art_Theory Design Music",
    "Business": "Accounting Economics Finance Manage Marketing",
    "Science": "Biology Chemistry Geography Math Physics",
    "Health and Medicine": (
        "Basic_Medical_Science Clinical_Medicine Diagnostics_and_Laboratory_Medicine Pharmacy "
        "Public_Health"
    ),
    "Humanities and Social Science": "History Literature Sociology Psychology",
    "Tech and Engineering": (
        "Agriculture Architecture_and_Engineering Computer_Science Electronics Energy_and_Power "
        "Materials Mechanical_Engineering"
    ),
}
_DISCIPLINE_OF = {
    subject: discipline
    for discipline, subjects in _DISCIPLINES.items()
    for subject in subjects.split()
}
_MARK = r"<image (\d+)>"
_MOST_PICTURES = 7
_LETTER_ONLY = "Answer with the option's letter from the given choices directly."
_FEW_WORDS = "Answer the question using a single word or phrase."
_HIDDEN = ("", "?")
_MANY_WORDS = 5
"""A reply of more words is searched for the text of a choice."""
_READING = Reading(
    trims=(None, "."),
    sentence=r"\n",
    signs=("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result "),
    last_signs=("=",),
    numbers=(
        r"-?\b\d{1,3}(?:,\d{3})+\b",
        r"-?\d+(?:\.\d+)?[eE][+-]?\d+",
        r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])",
    ),
    lowers=True,
)


class MMMU(Task):
    """Chooses a letter, or answers in few words, as the question asks.

    Pictures stand where question and choices have ``<image 1>``; those that are not named come
    first. Replies are read as the official script does: the last letter in brackets, else the last
    that stands alone, else the last choice whose text a reply of more than five words has. Of an
    open question any number or phrase that the reply gives as an answer may be right.

    A reply that names no choice is counted as unread and then guessed, as in the official script;
    here the guess is fixed by seed and question. An average is over questions.

    Args:
        data: folder or zip of a saved data set, with a table for each subject or one for all.
        options: how replies are made.
        split: "validation", "dev", or "test", whose answers are not published: then a file to be
            submitted is written.
        by: "generation" of a reply, or "likelihood" of the letters; open questions are always
            answered by generation.
        frame: see `mllm_npu.evaluate.prompt.Frame`.
        seed: of guesses.

    Source: eval/eval_utils.py, eval/data_utils.py, eval/main_parse_and_eval.py, print_results.py
        and mmmu/configs/llava1.5.yaml of github.com/MMMU-Benchmark/MMMU.
    """

    name = "mmmu"
    title = "MMMU"
    citation = (
        "Yue et al. 2023, MMMU: A Massive Multi-discipline Multimodal Understanding and Reasoning "
        "Benchmark for Expert AGI, arXiv:2311.16502. Data: Apache-2.0."
    )

    def __init__(
        self,
        *,
        data: str | Path,
        options: GenerationOptions,
        split: Literal["dev", "validation", "test"] = "validation",
        by: Ask = "generation",
        frame: Frame = "chat",
        seed: int = 42,
    ) -> None:
        self.data, self.options, self.split = Path(data), options, split
        self.by, self.frame, self.seed = by, frame, seed

    def examples(self) -> Sequence[Example]:
        """All questions of the split, subject by subject as the files are ordered."""
        files = BenchmarkFiles(self.data, layout=_LAYOUT)
        rows = split_rows(files, split_tables(files, self.split))
        made = [self._example(row, where) for where, row in rows]
        check_names([example.name for example in made], str(self.data))
        return made

    def score(self, example: Example, reply: Reply) -> float:
        """1 for the right choice, guessed where none was named, or for the right short answer."""
        if not example.answer:
            return 0.0
        letters = example.facts["letters"]
        if letters:
            chosen = self.explain(example, reply)
            if chosen is None:
                chosen = Random(f"{self.seed} {example.name}").choice(letters)
            return float(chosen == example.answer)
        right = [form for one in json.loads(example.facts["right"]) for form in normalize(one)]
        return float(has_right_answer(read_answers(reply.text, _READING, normalize), right))

    def explain(self, example: Example, reply: Reply) -> str | None:
        """The letter or the short answers; None where the reply names no choice, or is empty."""
        letters = example.facts["letters"]
        if reply.choices:
            return LETTERS[likeliest(reply)]
        if letters:
            return parse_choice(reply.text, [example.facts[letter] for letter in letters])
        if not reply.text.strip():
            return None
        return " | ".join(str(one) for one in read_answers(reply.text, _READING, normalize))

    def figures(self, records: Sequence[Record]) -> Sequence[Figure]:
        """Over all questions, of the six disciplines, of their subjects."""
        if not any(record.example.answer for record in records):
            title = f"{self.title} {self.split}"
            return [answered_figure(records, name=self.name, title=title, citation=self.citation)]
        return grouped_figures(records, name=self.name, title=self.title, citation=self.citation)

    def submissions(self, records: Sequence[Record]) -> Mapping[str, str]:
        """The letter of each choice and the reply to each open question, as the server takes."""
        answers = {
            record.example.name: (
                record.understood or "" if record.example.facts["letters"] else record.reply.text
            )
            for record in records
        }
        return {f"mmmu_{self.split}.json": json.dumps(answers, indent=1, ensure_ascii=False)}

    def _example(self, row: Row, where: str) -> Example:
        name = read_text(row, "id", where)
        choices = _read_choices(row, where)
        question = read_text(row, "question", where)
        listed = list_choices(choices, "({letter}) {text}\n")
        prompt = f"{question}\n{listed}\n{_LETTER_ONLY}" if choices else f"{question}\n{_FEW_WORDS}"
        letters = LETTERS[: len(choices)]
        answer = optional_text(row, "answer").strip()
        if choices and answer not in (*letters, *_HIDDEN):
            raise DataError(
                f"{where}: the right answer is {answer!r}, there are the choices {letters}. "
                "Download it again."
            )
        return Example(
            name=name,
            conversation=put_question(_interleave(prompt, row, where), frame=self.frame),
            answer="" if answer in _HIDDEN else answer,
            options=self.options,
            choices=tuple(letters) if self.by == "likelihood" else (),
            groups=_groups_of(name, where),
            facts={
                "letters": letters,
                **dict(zip(letters, choices, strict=True)),
                "right": json.dumps(_read_list(answer) or [answer]),
            },
        )


def parse_choice(text: str, choices: Sequence[str]) -> str | None:
    """The letter that a written reply chooses; None where it chooses none.

    Args:
        text: the reply.
        choices: their texts.
    """
    letters = LETTERS[: len(choices)]
    for sign in ",.!?;:'":
        text = text.strip(sign)
    padded = f" {text} "
    for form in ("({})", " {} "):
        places = {letter: padded.rfind(form.format(letter)) for letter in letters}
        if max(places.values(), default=-1) >= 0:
            return max(places, key=places.__getitem__)
    if len(padded.split()) <= _MANY_WORDS:
        return None
    lowered = padded.lower()
    places = {
        letter: lowered.rfind(choice.lower())
        for letter, choice in zip(letters, choices, strict=True)
    }
    last = max(places, key=places.__getitem__, default=None)
    return last if last is not None and places[last] >= 0 else None


def normalize(text: str) -> list[Answer]:
    """The forms in which an answer is compared: a number, or small letters.

    A single letter is looked for with a blank beside it, since it stands in most words.
    """
    text = text.strip()
    number = read_number(text)
    if number is not None:
        return [number]
    lowered = text.lower()
    return [f" {lowered}", f"{lowered} "] if len(lowered) == 1 else [lowered]


def _read_choices(row: Row, where: str) -> list[str]:
    if read_text(row, "question_type", where) != "multiple-choice":
        return []
    given = row.get("options")
    choices = given if isinstance(given, list) else _read_list(str(given))
    if not choices:
        raise DataError(f"{where}: no choices can be read in {given!r}. Download it again.")
    return [str(choice) for choice in choices]


def _read_list(text: str) -> list[str]:
    """A list that is spelt as in Python; empty where the text is none."""
    if not re.match(r"\s*\[", text):
        return []
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    return [str(one) for one in found] if isinstance(found, list) else []


def _groups_of(name: str, where: str) -> tuple[str, str]:
    """Discipline and subject, which stands in the name of a question."""
    subject = name.partition("_")[2].rpartition("_")[0]
    if subject not in _DISCIPLINE_OF:
        raise DataError(
            f"{where}: the id {name!r} names no subject that is known, it should be as in "
            "validation_Accounting_1."
        )
    return _DISCIPLINE_OF[subject], subject


def _interleave(prompt: str, row: Row, where: str) -> list[str | Picture]:
    cells = {str(number): row.get(f"image_{number}") for number in range(1, _MOST_PICTURES + 1)}
    pictures = {
        number: picture_from_cell(cell, f"{where}, image_{number}")
        for number, cell in cells.items()
        if cell is not None
    }

    def look_up(number: str) -> Picture:
        if number not in pictures:
            raise DataError(
                f"{where}: the question shows <image {number}>, there is no image_{number}. "
                "Download it again."
            )
        return pictures[number]

    woven = weave(prompt, _MARK, look_up)
    shown = set(re.findall(_MARK, prompt))
    return [*(one for number, one in pictures.items() if number not in shown), *woven]
