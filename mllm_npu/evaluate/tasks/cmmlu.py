"""CMMLU: questions of 67 subjects from school to profession, in Chinese."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mllm_npu.evaluate.benchmark_files import BenchmarkFiles, check_names
from mllm_npu.evaluate.choices import Ask
from mllm_npu.evaluate.figure import Figure
from mllm_npu.evaluate.grouped import grouped_figures
from mllm_npu.evaluate.prompt import Frame
from mllm_npu.evaluate.task import Example, Record, Task
from mllm_npu.evaluate.tasks.cmmlu_subjects import CHINA, SUBJECTS, category_of, is_about_china
from mllm_npu.evaluate.tasks.exam import (
    ExamPaper,
    ExamTable,
    answer_letter,
    first_shots,
    is_right,
    subjects_figure,
)
from mllm_npu.inference.events import Reply
from mllm_npu.inference.options import GenerationOptions

_LAYOUT = """\
cmmlu/
├── dev/agronomy.csv    solved questions; 67 files, one a subject
└── test/agronomy.csv   begins with ",Question,A,B,C,D,Answer"
It is the folder data of github.com/haonan-li/CMMLU, or cmmlu_v1_0_1.zip of its data set."""

_TABLE = ExamTable(key="", question="Question", answer="Answer")


class CMMLU(Task):
    """Names the letter of the right choice, after solved questions of the same subject.

    A category is the mean of its subjects, and the main number the mean of all 67 of them, however
    many questions each has. A subject about China counts in its own category and in that of China.

    Args:
        data: folder or zip of the published files.
        shots: solved questions before each.
        by: see `Ask`; the official way for a model whose probabilities are known is "likelihood".
        frame: see `Frame`.
        options: how a reply is written, where one is.

    Source: prompt and averages as in ``src/mp_utils.py`` of haonan-li/CMMLU. It guesses where a
    written reply has no letter; here that is wrong, and counted. Of shots that do not fit it leaves
    out the longest, here the last.
    """

    name = "cmmlu"
    citation = (
        "Li et al., CMMLU: Measuring massive multitask language understanding in Chinese, Findings "
        "of ACL 2024, arXiv 2306.09212. Data: github.com/haonan-li/CMMLU, CC BY-NC-SA 4.0."
    )

    def __init__(
        self,
        *,
        data: Path,
        shots: int = 5,
        by: Ask = "likelihood",
        frame: Frame = "plain",
        options: GenerationOptions,
    ) -> None:
        self.data, self.shots = data, shots
        self.title = f"CMMLU, {shots} shots"
        self._paper = ExamPaper(
            by=by, frame=frame, options=options, opening="题目：", ending="\n答案是："
        )

    def examples(self) -> Sequence[Example]:
        """All questions, subject by subject."""
        files = BenchmarkFiles(self.data, layout=_LAYOUT)
        found: list[Example] = []
        for subject, (chinese, *_) in SUBJECTS.items():
            solved = f"dev/{subject}.csv"
            found += self._paper.ask(
                _TABLE.read(files, f"test/{subject}.csv"),
                subject=subject,
                intro=f"以下是关于{chinese}的单项选择题，请直接给出正确答案的选项。\n\n",
                shots=first_shots(_TABLE.read(files, solved), self.shots, solved),
                groups=(category_of(subject),),
            )
        check_names([example.name for example in found], str(files.path))
        return found

    def score(self, example: Example, reply: Reply) -> float:
        """1 for the right letter."""
        return is_right(example, reply)

    def explain(self, example: Example, reply: Reply) -> str | None:
        """The letter of the reply; None where there is none."""
        return answer_letter(reply)

    def figures(self, records: Sequence[Record]) -> Sequence[Figure]:
        """Over all subjects, then of each category and subject."""
        figures = grouped_figures(
            records,
            name=self.name,
            title=self.title,
            citation=self.citation,
            average="macro",
            inner="macro",
        )
        china = [record for record in records if is_about_china(record.example.groups[-1])]
        if china:
            figures.append(subjects_figure(china, name=f"{self.name}/{CHINA}", title=CHINA))
        return figures
