"""MME: two questions about each picture that are answered by yes or no, in 14 subtasks.

Source: Fu et al. 2023 (MME, arXiv 2306.13394), and the `calculation.py` of its evaluation tool: how
a reply is read, acc and acc+, and their sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from mllm_npu.errors import ConfigError, DataError
from mllm_npu.evaluate.benchmark_files import BenchmarkFiles, check_names
from mllm_npu.evaluate.benchmark_pictures import PictureFiles, picture_from_cell
from mllm_npu.evaluate.benchmark_rows import read_field, read_text, split_rows, split_tables
from mllm_npu.evaluate.figure import Figure, statistic_figure
from mllm_npu.evaluate.grouped import by_group
from mllm_npu.evaluate.prompt import Frame, put_question
from mllm_npu.evaluate.task import Example, Record, Task, count_unread
from mllm_npu.inference.events import Reply
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.raster import Picture

KINDS: Mapping[str, tuple[str, ...]] = {
    "perception": (
        *("existence", "count", "position", "color", "posters"),
        *("celebrity", "scene", "landmark", "artwork", "OCR"),
    ),
    "cognition": (
        *("commonsense_reasoning", "numerical_calculation"),
        *("text_translation", "code_reasoning"),
    ),
}
"""Subtasks by what they ask for. A subtask counts 200 at most: 100 for acc, 100 for acc+."""

SUBTASKS = tuple(subtask for subtasks in KINDS.values() for subtask in subtasks)

_KIND_OF = {subtask: kind for kind, subtasks in KINDS.items() for subtask in subtasks}
_QUESTIONS_OF_A_PICTURE = 2
_LAYOUT = """\
MME_Benchmark_release_version/        (or parquet files test-*.parquet)
├── existence/                        (count, position, color, OCR and the four of cognition alike)
│   ├── 000000006040.jpg
│   └── 000000006040.txt              two lines: question, tab, Yes or No
└── artwork/                          (posters, celebrity, scene and landmark alike)
    ├── images/10002.jpg
    └── questions_answers_YN/10002.txt"""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A picture with its questions and their answers."""

    subtask: str
    file: str
    picture: Picture
    questions: tuple[tuple[str, str], ...]


class Mme(Task):
    """Yes or no; a subtask counts acc (questions right) and acc+ (pictures with both right).

    The main number is the sum over subtasks of acc and acc+ in percent: 2800 at most, 2000 for
    perception and 800 for cognition. Chance is 75 a subtask.

    Args:
        data: folder or zip of the release, or its rows as parquet.
        frame: how a question is put.
        options: how replies are made.
        subtasks: which of the 14; sums are over these.

    Raises:
        ConfigError: a subtask that does not exist, or none.
    """

    name = "mme"
    title = "MME: acc and acc+ in percent, summed over subtasks"
    citation = (
        "Fu et al. 2023, arXiv 2306.13394. Data collected by Xiamen University for academic "
        "research only; pictures belong to their owners."
    )

    def __init__(
        self,
        *,
        data: str | Path,
        frame: Frame = "chat",
        options: GenerationOptions,
        subtasks: Sequence[str] = SUBTASKS,
    ) -> None:
        unknown = [subtask for subtask in subtasks if subtask not in SUBTASKS]
        if unknown or not subtasks:
            raise ConfigError(
                f"The subtasks {list(subtasks)} of MME were asked for; there are {list(SUBTASKS)}. "
                "Give at least one of these."
            )
        self.data, self.frame, self.options = Path(data), frame, options
        self.subtasks = tuple(subtasks)

    def examples(self) -> Sequence[Example]:
        """Both questions of every picture, side by side, subtask by subtask."""
        files = BenchmarkFiles(self.data, layout=_LAYOUT)
        is_saved = files.has("*.parquet") or files.has("*.arrow")
        examples: list[Example] = []
        for asked in (_saved_pictures if is_saved else _released_pictures)(files, self.subtasks):
            _check(asked, str(self.data))
            examples += [self._to_example(asked, number) for number in range(len(asked.questions))]
        check_names([example.name for example in examples], str(self.data))
        return examples

    def score(self, example: Example, reply: Reply) -> float:
        """1 for the right word of the two."""
        return float(_read_yes_no(reply.text) == example.answer.lower())

    def explain(self, example: Example, reply: Reply) -> str | None:
        """The word, yes or no; None of what the official tool counts as "other"."""
        return _read_yes_no(reply.text)

    def figures(self, records: Sequence[Record]) -> Sequence[Figure]:
        """The sum, the sum of each kind, and of each subtask its points, acc and acc+."""
        figures = [_figure(records, self.name, self.title, level=0, citation=self.citation)]
        for kind, of_kind in by_group(records, 0).items():
            subtasks = by_group(of_kind, 1)
            title = f"MME {kind}, {200 * len(subtasks)} at most"
            figures.append(_figure(of_kind, f"{self.name}/{kind}", title, level=1))
            for subtask, own in subtasks.items():
                name, right = f"{self.name}/{subtask}", f"{subtask}: questions right"
                both = f"{subtask}: pictures with both right"
                figures += [
                    _figure(own, name, f"{subtask}, 200 at most", level=2),
                    _figure(own, f"{name}/acc", right, level=3, statistic=_acc),
                    _figure(own, f"{name}/acc_plus", both, level=3, statistic=_acc_plus),
                ]
        return figures

    def submissions(self, records: Sequence[Record]) -> Mapping[str, str]:
        """A file for each subtask, as the official tool takes them."""
        lines: dict[str, list[str]] = {}
        for record in records:
            example = record.example
            said = " ".join(record.reply.text.split())
            cells = (example.facts["picture"], example.facts["question"], example.answer, said)
            lines.setdefault(f"mme/{example.groups[1]}.txt", []).append("\t".join(cells) + "\n")
        return {name: "".join(own) for name, own in lines.items()}

    def _to_example(self, asked: _Asked, number: int) -> Example:
        question, answer = asked.questions[number]
        return Example(
            name=f"{asked.subtask}/{PurePosixPath(asked.file).stem}/{number}",
            conversation=put_question([asked.picture, question], frame=self.frame),
            answer=answer,
            options=self.options,
            groups=(_KIND_OF[asked.subtask], asked.subtask),
            facts={"picture": asked.file, "question": question},
        )


def _released_pictures(files: BenchmarkFiles, subtasks: Sequence[str]) -> Iterator[_Asked]:
    pictures = PictureFiles(files)
    for subtask in subtasks:
        nested = f"{subtask}/questions_answers_YN/*.txt"
        is_nested = files.has(nested)
        beside = files.find(f"{subtask}/images/*.*" if is_nested else f"{subtask}/*.*")
        by_stem = {PurePosixPath(name).stem: name for name in beside if not name.endswith(".txt")}
        for name in files.find(nested if is_nested else f"{subtask}/*.txt"):
            picture = by_stem.get(PurePosixPath(name).stem)
            if picture is None:
                raise files.lacking(f"{name} has no picture")
            lines = [line for line in files.read_text(name).split("\n") if line.strip()]
            rows = [line.strip().split("\t") for line in lines]
            if any(len(row) != 2 for row in rows):
                raise files.lacking(f"{name} has a line that is not a question, a tab, an answer")
            yield _Asked(
                subtask,
                PurePosixPath(picture).name,
                pictures.open(picture, name),
                tuple((question.strip(), answer.strip()) for question, answer in rows),
            )


def _saved_pictures(files: BenchmarkFiles, subtasks: Sequence[str]) -> Iterator[_Asked]:
    found: dict[tuple[str, str], _Asked] = {}
    for where, row in split_rows(files, split_tables(files, "test")):
        key = (read_text(row, "category", where), read_text(row, "question_id", where))
        pair = (read_text(row, "question", where).strip(), read_text(row, "answer", where).strip())
        if key in found:
            found[key] = replace(found[key], questions=(*found[key].questions, pair))
        else:
            picture = picture_from_cell(read_field(row, "image", where), where)
            found[key] = _Asked(key[0], PurePosixPath(key[1]).name, picture, (pair,))
    for subtask in subtasks:
        own = [asked for asked in found.values() if asked.subtask == subtask]
        if not own:
            raise files.lacking(f"there is no row of {subtask}")
        yield from own


def _check(asked: _Asked, where: str) -> None:
    answers = [answer for _, answer in asked.questions]
    if len(answers) != _QUESTIONS_OF_A_PICTURE or {a.lower() for a in answers} - {"yes", "no"}:
        raise DataError(
            f"{asked.subtask}/{asked.file} in {where}: two questions with the answer Yes or No are "
            f"expected, there are the answers {answers}. Download it again."
        )


def _read_yes_no(text: str) -> str | None:
    """The word that the first four characters hold."""
    start = text.strip().lower()[:4]
    return next((word for word in ("yes", "no") if word in start), None)


_Scored = tuple[str, tuple[float, ...]]
"""Of a picture its subtask and the scores of its questions."""


def _scored_pictures(records: Sequence[Record]) -> list[_Scored]:
    scores: dict[tuple[str, str], list[float]] = {}
    for record in records:
        key = (record.example.groups[1], record.example.facts["picture"])
        scores.setdefault(key, []).append(record.score)
    return [(subtask, tuple(own)) for (subtask, _), own in scores.items()]


def _acc(pictures: Sequence[_Scored]) -> float:
    scores = [score for _, own in pictures for score in own]
    return sum(scores) / len(scores)


def _acc_plus(pictures: Sequence[_Scored]) -> float:
    return sum(all(own) for _, own in pictures) / len(pictures)


def _points(pictures: Sequence[_Scored]) -> float:
    by_subtask: dict[str, list[_Scored]] = {}
    for picture in pictures:
        by_subtask.setdefault(picture[0], []).append(picture)
    return sum(100 * (_acc(own) + _acc_plus(own)) for own in by_subtask.values())


def _figure(
    records: Sequence[Record],
    name: str,
    title: str,
    *,
    level: int,
    statistic: Callable[[Sequence[_Scored]], float] = _points,
    citation: str = "",
) -> Figure:
    return statistic_figure(
        name=name,
        title=title,
        units=_scored_pictures(records),
        statistic=statistic,
        num=len(records),
        citation=citation,
        num_unread=count_unread(records),
        level=level,
    )
