"""MMLU: questions of 57 subjects from school to profession, in English."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from mllm_npu.evaluate.benchmark_files import BenchmarkFiles, check_names
from mllm_npu.evaluate.choices import Ask
from mllm_npu.evaluate.figure import Figure
from mllm_npu.evaluate.grouped import grouped_figures
from mllm_npu.evaluate.prompt import Frame
from mllm_npu.evaluate.task import Example, Record, Task
from mllm_npu.evaluate.tasks.exam import (
    FOUR,
    ExamPaper,
    ExamTable,
    answer_letter,
    first_shots,
    is_right,
)
from mllm_npu.evaluate.tasks.mmlu_subjects import SUBCATEGORIES, groups_of
from mllm_npu.inference.events import Reply
from mllm_npu.inference.options import GenerationOptions

_LAYOUT = """\
mmlu/
├── dev/abstract_algebra_dev.csv     solved questions; 57 files, one a subject
├── test/abstract_algebra_test.csv   question,A,B,C,D,answer without a line of names
└── val/abstract_algebra_val.csv
It is data.tar, to which github.com/hendrycks/test links, unpacked."""

_TABLE = ExamTable(
    key=None, question="question", answer="answer", names=("question", *FOUR, "answer")
)


class MMLU(Task):
    """Names the letter of the right choice, after solved questions of the same subject.

    All averages are over questions: of a subject, a subcategory, a category and of all.

    Args:
        data: folder or zip of the published files.
        shots: solved questions before each.
        by: see `Ask`; the official way is "likelihood".
        frame: see `Frame`.
        split: which questions.
        options: how a reply is written, where one is.

    Source: prompt and averages as in ``evaluate.py`` and ``evaluate_hf.py`` of hendrycks/test.
    """

    name = "mmlu"
    citation = (
        "Hendrycks et al., Measuring Massive Multitask Language Understanding, ICLR 2021, "
        "arXiv 2009.03300. Data: github.com/hendrycks/test, MIT licence."
    )

    def __init__(
        self,
        *,
        data: Path,
        shots: int = 5,
        by: Ask = "likelihood",
        frame: Frame = "plain",
        split: Literal["test", "val"] = "test",
        options: GenerationOptions,
    ) -> None:
        self.data, self.shots, self.split = data, shots, split
        self.title = f"MMLU ({split}), {shots} shots"
        self._paper = ExamPaper(by=by, frame=frame, options=options, ending="\nAnswer:", blank=" ")

    def examples(self) -> Sequence[Example]:
        """All questions of the split, subject by subject."""
        files = BenchmarkFiles(self.data, layout=_LAYOUT)
        found: list[Example] = []
        for subject in SUBCATEGORIES:
            solved = f"dev/{subject}_dev.csv"
            found += self._paper.ask(
                _TABLE.read(files, f"{self.split}/{subject}_{self.split}.csv"),
                subject=subject,
                intro=_intro(subject),
                shots=first_shots(_TABLE.read(files, solved), self.shots, solved),
                groups=groups_of(subject),
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
        """Over all questions, then of each category, subcategory and subject."""
        return grouped_figures(
            records, name=self.name, title=self.title, citation=self.citation, average="micro"
        )


def _intro(subject: str) -> str:
    # The official script puts a blank before each word of a subject, so there are two before it.
    words = "".join(f" {word}" for word in subject.split("_"))
    return f"The following are multiple choice questions (with answers) about {words}.\n\n"
