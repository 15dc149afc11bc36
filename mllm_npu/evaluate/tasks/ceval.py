"""C-Eval: questions of Chinese exams in 52 subjects, from middle school to profession."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from mllm_npu.evaluate.benchmark_files import BenchmarkFiles, check_names
from mllm_npu.evaluate.choices import Ask
from mllm_npu.evaluate.figure import Figure
from mllm_npu.evaluate.grouped import by_group, grouped_figures
from mllm_npu.evaluate.hidden_answers import answered_figure
from mllm_npu.evaluate.prompt import Frame
from mllm_npu.evaluate.task import Example, Record, Task
from mllm_npu.evaluate.tasks.ceval_subjects import HARD, SUBJECTS
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
ceval/
├── dev/accountant_dev.csv     solved questions; 52 files, one a subject
├── val/accountant_val.csv     begins with "id,question,A,B,C,D,answer"
└── test/accountant_test.csv   the same without "answer"
It is ceval-exam.zip of huggingface.co/datasets/ceval/ceval-exam."""

_SOLVED = ExamTable(key="id", question="question", answer="answer")
_UNSOLVED = ExamTable(key="id", question="question", answer=None)


class CEval(Task):
    """Names the letter of the right choice, after solved questions of the same subject.

    A category is the mean of its subjects, and the main number the mean of all 52 of them, however
    many questions each has. The answers of the split "test" are not published: its figure tells how
    many questions have an answer, and its submission is what the official evaluation takes.

    Args:
        data: folder or zip of the published files.
        shots: solved questions before each.
        by: see `Ask`.
        frame: see `Frame`.
        split: which questions.
        options: how a reply is written, where one is.

    Source: prompt as in ``code/evaluator_series/evaluators/llama.py`` and ``resources/tutorial.md``
    of hkust-nlp/ceval (answer only), the form of a submission as in its README. The averages of its
    tables are those over subjects.
    """

    name = "ceval"
    citation = (
        "Huang et al., C-Eval: A Multi-Level Multi-Discipline Chinese Evaluation Suite for "
        "Foundation Models, NeurIPS 2023, arXiv 2305.08322. Data: github.com/hkust-nlp/ceval, "
        "CC BY-NC-SA 4.0."
    )

    def __init__(
        self,
        *,
        data: Path,
        shots: int = 5,
        by: Ask = "likelihood",
        frame: Frame = "plain",
        split: Literal["val", "test"] = "val",
        options: GenerationOptions,
    ) -> None:
        self.data, self.shots, self.split = data, shots, split
        self.title = f"C-Eval ({split}), {shots} shots"
        self._paper = ExamPaper(by=by, frame=frame, options=options, ending="\n答案：")

    def examples(self) -> Sequence[Example]:
        """All questions of the split, subject by subject."""
        files = BenchmarkFiles(self.data, layout=_LAYOUT)
        table = _UNSOLVED if self.split == "test" else _SOLVED
        found: list[Example] = []
        for subject, (chinese, category) in SUBJECTS.items():
            solved = f"dev/{subject}_dev.csv"
            found += self._paper.ask(
                table.read(files, f"{self.split}/{subject}_{self.split}.csv"),
                subject=subject,
                intro=f"以下是中国关于{chinese}考试的单项选择题，请选出其中的正确答案。\n\n",
                shots=first_shots(_SOLVED.read(files, solved), self.shots, solved),
                groups=(category,),
            )
        check_names([example.name for example in found], str(files.path))
        return found

    def score(self, example: Example, reply: Reply) -> float:
        """1 for the right letter; 0 where that is not published."""
        return is_right(example, reply)

    def explain(self, example: Example, reply: Reply) -> str | None:
        """The letter of the reply; None where there is none."""
        return answer_letter(reply)

    def figures(self, records: Sequence[Record]) -> Sequence[Figure]:
        """Over all subjects, then of each category and subject, and of the hard subjects."""
        if self.split == "test":
            return [
                answered_figure(records, name=self.name, title=self.title, citation=self.citation)
            ]
        figures = grouped_figures(
            records,
            name=self.name,
            title=self.title,
            citation=self.citation,
            average="macro",
            inner="macro",
        )
        hard = [record for record in records if record.example.groups[-1] in HARD]
        if hard:
            figures.append(subjects_figure(hard, name=f"{self.name}/Hard", title="Hard"))
        return figures

    def submissions(self, records: Sequence[Record]) -> Mapping[str, str]:
        """Letters by subject and id; an unread reply is an empty one."""
        if self.split != "test":
            return {}
        letters = {
            subject: {_key(record): record.understood or "" for record in own}
            for subject, own in by_group(records, -1).items()
        }
        return {"ceval_test.json": json.dumps(letters, ensure_ascii=False, indent=1) + "\n"}


def _key(record: Record) -> str:
    return record.example.name.partition("/")[2]
