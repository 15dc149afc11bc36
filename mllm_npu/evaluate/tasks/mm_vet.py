"""MM-Vet: open questions that need several abilities at once, graded by a judge from 0 to 1.

Source: Yu et al. 2023 (MM-Vet, arXiv 2308.02490), and `mm-vet_evaluator.py` of its repository: the
judge's prompt, how its grade is read, and the averages.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mllm_npu.errors import DataError
from mllm_npu.evaluate.benchmark_files import BenchmarkFiles, Row, check_names
from mllm_npu.evaluate.benchmark_pictures import PictureFiles, picture_from_cell
from mllm_npu.evaluate.benchmark_rows import read_field, read_text, split_rows, split_tables
from mllm_npu.evaluate.figure import Figure, mean_figure
from mllm_npu.evaluate.judge import Judge
from mllm_npu.evaluate.prompt import Frame, put_question
from mllm_npu.evaluate.task import Example, Record, Task, count_unread
from mllm_npu.inference.events import Reply
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.raster import Picture

ABILITIES = {
    "rec": "recognition",
    "ocr": "reading",
    "know": "knowledge",
    "gen": "writing",
    "spat": "where things are",
    "math": "arithmetic",
}

_LAYOUT = """\
mm-vet/                               (or parquet files test-*.parquet)
├── mm-vet.json                       {"v1_0": {imagename, question, answer, capability}, ...}
└── images/v1_0.png, ..."""

_MEME_TRUTH = (
    "This meme is poking fun at the fact that the names of the countries Iceland and Greenland are "
    "misleading. Despite its name, Iceland is known for its beautiful green landscapes, while "
    "Greenland is mostly covered in ice and snow. The meme is saying that the person has trust "
    "issues because the names of these countries do not accurately represent their landscapes."
)
_MEME_BRIEF = (
    "The meme talks about Iceland and Greenland. It's pointing out that despite their names, "
    "Iceland is not very icy and Greenland isn't very green."
)
_MEME_FULL = (
    "The meme is using humor to point out the misleading nature of Iceland's and Greenland's "
    "names. Iceland, despite its name, has lush green landscapes while Greenland is mostly covered "
    "in ice and snow. The text 'This is why I have trust issues' is a playful way to suggest that "
    "these contradictions can lead to distrust or confusion. The humor in this meme is derived "
    "from the unexpected contrast between the names of the countries and their actual physical "
    "characteristics."
)
_SOLVED = (
    ("What is x in the equation?", "-1 <AND> -5", "x = 3", "0.0"),
    ("What is x in the equation?", "-1 <AND> -5", "x = -1", "0.5"),
    ("What is x in the equation?", "-1 <AND> -5", "x = -5", "0.5"),
    ("What is x in the equation?", "-1 <AND> -5", "x = -5 or 5", "0.5"),
    ("What is x in the equation?", "-1 <AND> -5", "x = -1 or x = -5", "1.0"),
    ("Can you explain this meme?", _MEME_TRUTH, _MEME_BRIEF, "0.4"),
    ("Can you explain this meme?", _MEME_TRUTH, _MEME_FULL, "1.0"),
)
JUDGE_PROMPT = (
    "Compare the ground truth and prediction from AI models, to give a correctness score for the "
    "prediction. <AND> in the ground truth means it is totally right only when all elements in the "
    "ground truth are present in the prediction, and <OR> means it is totally right when any one "
    "element in the ground truth is present in the prediction. The correctness score is 0.0 "
    "(totally wrong), 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, or 1.0 (totally right). Just "
    "complete the last space of the correctness score.\n\n"
    "Question | Ground truth | Prediction | Correctness\n--- | --- | --- | ---\n"
) + "".join(" | ".join(solved) + "\n" for solved in _SOLVED)
"""The published prompt, which grades depend on."""

_SUBMISSION = "mm_vet.json"
_ASK_AGAIN = "\nPredict the correctness of the answer (digit): "


class MmVet(Task):
    """Free replies; a judge says how right each is, and grades are averaged by ability.

    The paper's judge is gpt-4-0613; grades of another are not to be compared with published ones.
    A grade that cannot be read is asked for once more in other words, and then counts 0. Without a
    judge no reply is graded: the submission is for the official evaluation.

    Args:
        data: folder or zip of the release, or its rows as parquet.
        frame: how a question is put.
        options: how replies are made.
        judge: grades replies; None leaves it to the official evaluation.
    """

    name = "mm_vet"
    title = "MM-Vet: mean grade"
    citation = (
        "Yu et al. 2023, arXiv 2308.02490. Data under a licence for non-commercial research and "
        "education."
    )

    def __init__(
        self,
        *,
        data: str | Path,
        frame: Frame = "chat",
        options: GenerationOptions,
        judge: Judge | None = None,
    ) -> None:
        self.data, self.frame, self.options = Path(data), frame, options
        self.judge = judge
        if judge is None:
            self.title = f"MM-Vet: replies that are not graded; set judge, or hand in {_SUBMISSION}"

    def examples(self) -> Sequence[Example]:
        """Every question."""
        files = BenchmarkFiles(self.data, layout=_LAYOUT)
        is_saved = files.has("*.parquet") or files.has("*.arrow")
        examples = [
            Example(
                name=name,
                conversation=put_question(
                    [picture, read_text(row, "question", name)], frame=self.frame
                ),
                answer=read_text(row, "answer", name),
                options=self.options,
                facts={
                    "question": read_text(row, "question", name),
                    "abilities": _read_abilities(row, name),
                },
            )
            for name, row, picture in (_saved_rows if is_saved else _released_rows)(files)
        ]
        check_names([example.name for example in examples], str(self.data))
        return examples

    def score(self, example: Example, reply: Reply) -> float:
        """The judge's grade, 0..1; 0 without one.

        Raises:
            JudgeError: the judge does not answer.
        """
        return self._grade(example, reply) or 0.0

    def explain(self, example: Example, reply: Reply) -> str | None:
        """The reply; None where the judge gives no grade that can be read."""
        if self.judge is not None and self._grade(example, reply) is None:
            return None
        return reply.text.strip()

    def figures(self, records: Sequence[Record]) -> Sequence[Figure]:
        """The mean grade, then by ability, then by which abilities a question needs at once."""
        if self.judge is None:
            return [
                Figure(
                    name=f"{self.name}/ungraded",
                    title=self.title,
                    value=len(records),
                    num=len(records),
                    citation=self.citation,
                )
            ]
        figures = [_mean(records, self.name, self.title, level=0, citation=self.citation)]
        for ability, title in ABILITIES.items():
            own = [record for record in records if ability in _abilities(record)]
            if own:
                figures.append(_mean(own, f"{self.name}/{ability}", title, level=1))
        together: dict[str, list[Record]] = {}
        for record in records:
            together.setdefault("+".join(_abilities(record)), []).append(record)
        for key, own in sorted(together.items(), key=lambda pair: (-len(pair[1]), pair[0])):
            figures.append(_mean(own, f"{self.name}/only/{key}", f"exactly {key}", level=2))
        return figures

    def submissions(self, records: Sequence[Record]) -> Mapping[str, str]:
        """Replies as the official evaluation takes them."""
        replies = {record.example.name: record.reply.text.strip() for record in records}
        return {_SUBMISSION: json.dumps(replies, ensure_ascii=False, indent=4) + "\n"}

    def _grade(self, example: Example, reply: Reply) -> float | None:
        if self.judge is None:
            return None
        truth = example.answer.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
        cells = (example.facts["question"], truth, reply.text.strip(), "")
        prompt = JUDGE_PROMPT + "\n" + " | ".join(cells)
        for question in (prompt, prompt + _ASK_AGAIN):
            grade = _read_grade(self.judge.ask(question))
            if grade is not None:
                return grade
        return None


def _released_rows(files: BenchmarkFiles) -> Iterator[tuple[str, Row, Picture]]:
    pictures, name = PictureFiles(files), files.find("mm-vet.json")[0]
    content = files.read_json(name)
    if not isinstance(content, dict):
        raise files.lacking(f"{name} holds no questions by their names")
    for key, row in content.items():
        picture = pictures.open(read_text(row, "imagename", key), key)
        yield key, row, picture


def _saved_rows(files: BenchmarkFiles) -> Iterator[tuple[str, Row, Picture]]:
    for where, row in split_rows(files, split_tables(files, "test")):
        picture = picture_from_cell(read_field(row, "image", where), where)
        yield read_text(row, "question_id", where), row, picture


def _read_abilities(row: Row, where: str) -> str:
    """Abilities that a question needs, in the order of `ABILITIES`."""
    given = read_field(row, "capability", where)
    names = given.split(",") if isinstance(given, str) else list(given or ())
    names = [str(name).strip() for name in names]
    if not names or set(names) - set(ABILITIES):
        raise DataError(
            f"{where}: its abilities are {names}, there are {list(ABILITIES)}. Download it again."
        )
    return ",".join(ability for ability in ABILITIES if ability in names)


def _read_grade(text: str) -> float | None:
    """The number that a judge's text begins with, if it is one from 0 to 1."""
    try:
        grade = float(text.split()[0])
    except (ValueError, IndexError):
        return None
    return grade if 0 <= grade <= 1 else None


def _abilities(record: Record) -> list[str]:
    return record.example.facts["abilities"].split(",")


def _mean(
    records: Sequence[Record], name: str, title: str, *, level: int, citation: str = ""
) -> Figure:
    return mean_figure(
        name=name,
        title=title,
        values=[record.score for record in records],
        citation=citation,
        num_unread=count_unread(records),
        level=level,
    )
