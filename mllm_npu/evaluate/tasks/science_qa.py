"""ScienceQA: multiple choice of school science; the questions with a picture (ScienceQA-IMG)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Literal

from mllm_npu.errors import DataError
from mllm_npu.evaluate.benchmark_files import BenchmarkFiles, Row, check_names
from mllm_npu.evaluate.benchmark_pictures import PictureFiles, picture_from_cell
from mllm_npu.evaluate.benchmark_rows import (
    optional_text,
    read_field,
    read_text,
    split_rows,
    split_tables,
)
from mllm_npu.evaluate.choices import LETTERS, Ask, likeliest
from mllm_npu.evaluate.figure import Figure, mean_figure
from mllm_npu.evaluate.prompt import Frame, put_question
from mllm_npu.evaluate.task import Example, Record, Task, count_unread
from mllm_npu.inference.events import Reply
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.raster import Picture

_LAYOUT = """\
problems.json
pid_splits.json
images/test/5/image.png
... (data/scienceqa of lupantech/ScienceQA with its images unpacked)
or the tables of a saved Hugging Face data set with the pictures in them:
ScienceQA-IMG/test-00000-of-00001.parquet"""

_PICTURES_ONLY = "ScienceQA-IMG"
_LETTER_ONLY = "Answer with the option's letter from the given choices directly."
_GRADES = {f"grade{number}": "G1-6" if number <= 6 else "G7-12" for number in range(1, 13)}
_SUBJECTS = {"natural science": "NAT", "social science": "SOC", "language science": "LAN"}
_TITLES = {
    "NAT": "Natural science",
    "SOC": "Social science",
    "LAN": "Language science",
    "TXT": "With a text as context",
    "IMG": "With a picture as context",
    "NO": "Without context",
    "G1-6": "Grades 1 to 6",
    "G7-12": "Grades 7 to 12",
}
"""Classes of the published table, in its order."""


class ScienceQA(Task):
    """Chooses among two to five answers, with the hint and the picture of a question as context.

    A reply is read as LLaVA's script does: a letter alone, a letter with a point before a text, or
    what stands behind "The answer is". One that has none of these is counted as unread and then
    guessed, as in the official script; here the guess is fixed by seed and question. The figures
    are those of the published table, over questions.

    The prompt is the official CQM form without solved examples. In a chat it ends with what LLaVA
    asks for, as text that goes on with "Answer:", as the official script.

    Args:
        data: folder or zip in the published layout, or a saved data set.
        options: how replies are made.
        split: "test" or "val".
        with_picture_only: leave out questions without a picture, whose accuracy is ScienceQA-IMG.
        by: "generation" of a reply, or "likelihood" of the letters.
        frame: see `mllm_npu.evaluate.prompt.Frame`.
        seed: of guesses.

    Source: models/base_prompt.py, models/run_gpt3.py and tools/evaluate_acc.py of
        github.com/lupantech/ScienceQA; llava/eval/eval_science_qa.py of
        github.com/haotian-liu/LLaVA.
    """

    name = "science_qa"
    title = "ScienceQA"
    citation = (
        "Lu et al. 2022, Learn to Explain: Multimodal Reasoning via Thought Chains for Science "
        "Question Answering, arXiv:2209.09513. Data: CC BY-NC-SA 4.0."
    )

    def __init__(
        self,
        *,
        data: str | Path,
        options: GenerationOptions,
        split: Literal["test", "val"] = "test",
        with_picture_only: bool = True,
        by: Ask = "generation",
        frame: Frame = "chat",
        seed: int = 42,
    ) -> None:
        self.data, self.options, self.split = Path(data), options, split
        self.with_picture_only, self.by, self.frame = with_picture_only, by, frame
        self.seed = seed

    def examples(self) -> Sequence[Example]:
        """All questions of the split, in the order of the files."""
        files = BenchmarkFiles(self.data, layout=_LAYOUT)
        made = [
            self._example(*found)
            for found in _read_rows(files, self.split, self.with_picture_only)
            if found[-1] is not None or not self.with_picture_only
        ]
        check_names([example.name for example in made], str(self.data))
        return made

    def score(self, example: Example, reply: Reply) -> float:
        """1 for the right letter; a guess where none is named."""
        chosen = self.explain(example, reply)
        if chosen is None:
            chosen = Random(f"{self.seed} {example.name}").choice(example.facts["letters"])
        return float(chosen == example.answer)

    def explain(self, example: Example, reply: Reply) -> str | None:
        """The letter that is chosen; None where none is named."""
        if reply.choices:
            return LETTERS[likeliest(reply)]
        return parse_letter(reply.text, example.facts["letters"])

    def figures(self, records: Sequence[Record]) -> Sequence[Figure]:
        """Over all questions, then of each class of the published table that has any."""
        figures = [self._figure(self.name, self._main_title, records)]
        for name, title in _TITLES.items():
            own = [record for record in records if name in record.example.facts["classes"].split()]
            if own:
                figures.append(self._figure(f"{self.name}/{name}", title, own))
        return figures

    @property
    def _main_title(self) -> str:
        return f"{self.title}-IMG" if self.with_picture_only else self.title

    def _figure(self, name: str, title: str, records: Sequence[Record]) -> Figure:
        is_main = name == self.name
        return mean_figure(
            name=name,
            title=title,
            values=[record.score for record in records],
            citation=self.citation if is_main else "",
            num_unread=count_unread(records),
            level=0 if is_main else 1,
        )

    def _example(self, name: str, row: Row, where: str, picture: Picture | None) -> Example:
        choices, hint = _read_choices(row, where), optional_text(row, "hint").strip()
        listed = " ".join(
            f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False)
        )
        ending = "Answer:" if self.frame == "plain" else _LETTER_ONLY
        prompt = (
            f"Context: {hint or 'N/A'}\nQuestion: {read_text(row, 'question', where)}\n"
            f"Options: {listed}\n{ending}"
        ).replace("  ", " ")
        letters, answer = LETTERS[: len(choices)], read_field(row, "answer", where)
        if not isinstance(answer, int) or not 0 <= answer < len(choices):
            raise DataError(
                f"{where}: the right answer is {answer!r}, there are {len(choices)} choices. "
                "Download it again."
            )
        return Example(
            name=name,
            conversation=put_question(
                [prompt] if picture is None else [picture, prompt], frame=self.frame
            ),
            answer=letters[answer],
            options=self.options,
            choices=tuple(letters) if self.by == "likelihood" else (),
            facts={
                "letters": letters,
                "classes": _classes_of(
                    row, where, has_hint=bool(hint), has_picture=picture is not None
                ),
            },
        )


def parse_letter(text: str, letters: str) -> str | None:
    """The letter that a written reply chooses; None where it chooses none of these."""
    text = text.strip().replace("\n", ". ")
    for pattern in (r"([A-Z])\.?", r"([A-Z])\. .*", r".*?[Tt]he answer is \(?([A-Z])\b.*"):
        found = re.fullmatch(pattern, text)
        if found and found[1] in letters:
            return found[1]
    return None


def _read_rows(
    files: BenchmarkFiles, split: str, with_picture_only: bool
) -> Iterator[tuple[str, Row, str, Picture | None]]:
    """Name, row, place and picture of each question."""
    if not files.has("problems.json"):
        names = split_tables(files, split)
        # The same questions are published with and without those that have no picture.
        fitting = [name for name in names if (_PICTURES_ONLY in name) is with_picture_only]
        names = fitting or names
        for number, (where, row) in enumerate(split_rows(files, names)):
            cell = row.get("image")
            yield str(number), row, where, cell and picture_from_cell(cell, where)
        return
    problems = files.read_json(files.find("problems.json")[0])
    splits = files.read_json(files.find("pid_splits.json")[0])
    pictures = PictureFiles(files)
    for name in _numbers_of(splits, split, files):
        where = f"problems.json question {name}"
        if name not in problems:
            raise files.lacking(f"pid_splits.json names question {name}, which is not there")
        row = problems[name]
        file = optional_text(row, "image")
        path = f"{split}/{name}/{file}"
        yield name, row, where, pictures.open(path, where) if file else None


def _numbers_of(splits: Any, split: str, files: BenchmarkFiles) -> list[str]:
    if not isinstance(splits, Mapping) or not isinstance(splits.get(split), list):
        raise files.lacking(f"pid_splits.json has no list {split!r}")
    return [str(number) for number in splits[split]]


def _read_choices(row: Row, where: str) -> list[str]:
    choices = read_field(row, "choices", where)
    if not isinstance(choices, list) or len(choices) < 2:
        raise DataError(f"{where}: the choices are {choices!r}. Download it again.")
    return [str(choice) for choice in choices]


def _classes_of(row: Row, where: str, *, has_hint: bool, has_picture: bool) -> str:
    """Subject, kinds of context and grades of a question."""
    subject, grade = read_text(row, "subject", where), read_text(row, "grade", where)
    if subject not in _SUBJECTS or grade not in _GRADES:
        raise DataError(
            f"{where}: subject {subject!r} and grade {grade!r} are there, one of "
            f"{list(_SUBJECTS)} and grade1 to grade12 are expected. Is this ScienceQA?"
        )
    context = ["TXT"] * has_hint + ["IMG"] * has_picture or ["NO"]
    return " ".join((_SUBJECTS[subject], *context, _GRADES[grade]))
