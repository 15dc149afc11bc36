"""An exam: questions with four lettered choices, put after solved ones of the same subject."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mllm_npu.errors import ConfigError, DataError
from mllm_npu.evaluate.benchmark_files import BenchmarkFiles, Row
from mllm_npu.evaluate.choices import LETTERS, Ask, chosen_letter
from mllm_npu.evaluate.figure import Figure, statistic_figure
from mllm_npu.evaluate.grouped import by_group
from mllm_npu.evaluate.prompt import Frame, put_question
from mllm_npu.evaluate.task import Example, Record, count_unread
from mllm_npu.inference.events import Reply
from mllm_npu.inference.options import GenerationOptions

FOUR = tuple(LETTERS[:4])

_GAP = "\n\n"
"""Ends a solved question; a model that goes on after it begins the next one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamQuestion:
    """A question as it stands in the files.

    Args:
        key: unique in its subject.
        question: the text.
        choices: texts of A, B, C and D.
        answer: the right letter; empty where it is not published.
    """

    key: str
    question: str
    choices: tuple[str, ...]
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamTable:
    """What the columns of an exam's files are called; those of the choices are A, B, C and D.

    Args:
        key: column that tells rows apart; None takes a row's place in its file, from 0.
        question: column of the text.
        answer: column of the letter; None where it is not published.
        names: all columns in order, where the file has no line that names them.
    """

    key: str | None
    question: str
    answer: str | None
    names: tuple[str, ...] = ()

    def read(self, files: BenchmarkFiles, pattern: str) -> list[ExamQuestion]:
        """All questions of the one file that matches a pattern.

        Raises:
            DataError: it is not there, is empty, or a row is not as it should be.
        """
        name = files.find_one(pattern)
        place = f"{name} in {files.path}"
        rows = files.rows(name, fields=self.names)
        found = [self._read_row(row, number, place) for number, row in enumerate(rows)]
        if not found:
            raise DataError(f"{place} has no questions. Download it again.")
        return found

    def _read_row(self, row: Row, number: int, place: str) -> ExamQuestion:
        wanted = [self.key, self.question, *FOUR, self.answer]
        missing = [column for column in wanted if column is not None and column not in row]
        if missing:
            raise DataError(
                f"{place}: there are no columns {missing}, it has {list(row)}. Download it again."
            )
        key = str(number) if self.key is None else row[self.key].strip()
        if not key:
            raise DataError(
                f"{place}, row {number + 1}: its {self.key or 'first column'!r} is empty, so it "
                "cannot be told from others. Download it again."
            )
        answer = "" if self.answer is None else row[self.answer].strip()
        if self.answer is not None and answer not in FOUR:
            raise DataError(
                f"{place}, row {number + 1} ({key}): the answer is {answer!r}, one of "
                f"{', '.join(FOUR)} is expected. Download it again."
            )
        choices = tuple(row[letter] for letter in FOUR)
        return ExamQuestion(key=key, question=row[self.question], choices=choices, answer=answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamPaper:
    """How the questions of an exam are put to a model.

    Args:
        by: see `Ask`.
        frame: see `Frame`.
        options: how a reply is written, where one is.
        opening: stands before each question.
        ending: stands after its choices and before the letter.
        blank: stands between the two.
    """

    by: Ask
    frame: Frame
    options: GenerationOptions
    opening: str = ""
    ending: str
    blank: str = ""

    def ask(
        self,
        questions: Sequence[ExamQuestion],
        *,
        subject: str,
        intro: str,
        shots: Sequence[ExamQuestion],
        groups: tuple[str, ...] = (),
    ) -> list[Example]:
        """Examples of a subject.

        Args:
            questions: what is asked.
            subject: begins their names, and is the last of their groups.
            intro: stands before all.
            shots: solved before each question.
            groups: what the subject belongs to.
        """
        solved = [f"{self._write(shot)}{self.blank}{shot.answer}{_GAP}" for shot in shots]
        # A reply in a chat begins a turn of its own, so there is nothing to keep it apart from.
        blank = self.blank if self.frame == "plain" else ""
        choices = tuple(blank + letter for letter in FOUR) if self.by == "likelihood" else ()
        stop = (*self.options.stop, _GAP) if self.frame == "plain" else self.options.stop
        options = replace(self.options, images="forbid", stop=stop)
        return [
            Example(
                name=f"{subject}/{question.key}",
                conversation=put_question(
                    [self._write(question)], frame=self.frame, shots=solved, intro=intro
                ),
                answer=question.answer,
                options=options,
                choices=choices,
                num_shots=len(solved),
                first_shot=int(bool(intro)),
                groups=(*groups, subject),
            )
            for question in questions
        ]

    def _write(self, question: ExamQuestion) -> str:
        lines = [f"\n{letter}. {text}" for letter, text in zip(FOUR, question.choices, strict=True)]
        return f"{self.opening}{question.question}{''.join(lines)}{self.ending}"


def first_shots(solved: Sequence[ExamQuestion], shots: int, place: str) -> Sequence[ExamQuestion]:
    """As many solved questions as were asked for.

    Args:
        solved: all there are.
        shots: how many.
        place: where they come from.

    Raises:
        ConfigError: there are not so many.
    """
    if not 0 <= shots <= len(solved):
        raise ConfigError(
            f"shots={shots} was asked for, {place} has {len(solved)} solved questions. "
            f"Use a number from 0 to {len(solved)}."
        )
    return solved[:shots]


def answer_letter(reply: Reply) -> str | None:
    """The letter of a reply; None where a written one has none that can be read."""
    return chosen_letter(reply, len(FOUR))


def is_right(example: Example, reply: Reply) -> float:
    """1 for the right letter."""
    return float(answer_letter(reply) == example.answer)


def subjects_figure(records: Sequence[Record], *, name: str, title: str) -> Figure:
    """A category's mean over subjects, each of which is the mean of its questions.

    Args:
        records: at least one; the subject is the last of an example's groups.
        name: of the figure.
        title: of the figure.
    """
    subjects = by_group(records, -1).values()
    return statistic_figure(
        name=name,
        title=title,
        units=[[record.score for record in own] for own in subjects],
        statistic=lambda units: sum(sum(unit) / len(unit) for unit in units) / len(units),
        num=len(records),
        num_unread=count_unread(records),
        level=1,
    )
