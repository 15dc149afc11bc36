"""POPE: is this object in the picture? Half the time it is not; does a model see it all the same?

Source: Li et al. 2023 (POPE, arXiv 2305.10355), and `evaluate.py` of its repository: how a reply is
read, and the five numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
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

SUBSETS = ("random", "popular", "adversarial")

_LAYOUT = """\
pope/                                 (or parquet files test-*.parquet)
├── coco_pope_random.json             one JSON object a line: question_id, image, text, label
├── coco_pope_popular.json
├── coco_pope_adversarial.json
└── val2014/COCO_val2014_000000016631.jpg, ..."""

Counts = tuple[int, ...]
"""Questions by truth and reply: yes and yes, no and yes, no and no, yes and no."""

_PLACES = {(True, True): 0, (False, True): 1, (False, False): 2, (True, False): 3}

_Asked = tuple[str, str, Picture, str, str]
"""Number, file, picture, question and answer."""


class Pope(Task):
    """Yes or no; F1 of "yes", by subset, with accuracy, precision, recall and the share of "yes".

    The main number is the mean of the subsets' F1. A reply is "no" where its first sentence holds
    the word No, no or not, and "yes" otherwise, as the official script has it; replies with neither
    word are counted beside.

    Args:
        data: folder or zip with question files and pictures, or rows as parquet.
        frame: how a question is put.
        options: how replies are made.
        subsets: of random, popular, adversarial.
        source: what the question files begin with (coco, aokvqa, gqa).
        hint: a line after the question; "" adds none.

    Raises:
        ConfigError: a subset that does not exist, or none.
    """

    name = "pope"
    title = "POPE: F1, mean of the subsets"
    citation = (
        "Li et al. 2023, arXiv 2305.10355. Questions under the MIT licence, pictures of COCO "
        "(Lin et al. 2014) under their owners' Flickr licences."
    )

    def __init__(
        self,
        *,
        data: str | Path,
        frame: Frame = "chat",
        options: GenerationOptions,
        subsets: Sequence[str] = SUBSETS,
        source: str = "coco",
        hint: str = "",
    ) -> None:
        if not subsets or set(subsets) - set(SUBSETS):
            raise ConfigError(
                f"The subsets {list(subsets)} of POPE were asked for; there are {list(SUBSETS)}. "
                "Give at least one of these."
            )
        self.data, self.frame, self.options = Path(data), frame, options
        self.subsets, self.source, self.hint = tuple(subsets), source, hint

    def examples(self) -> Sequence[Example]:
        """Every question of every subset."""
        files = BenchmarkFiles(self.data, layout=_LAYOUT)
        is_saved = files.has("*.parquet") or files.has("*.arrow")
        read = _saved_questions(files) if is_saved else self._released_questions(files)
        found = [(subset, asked) for subset, asked in read if subset in self.subsets]
        for subset in self.subsets:
            if all(subset != name for name, _ in found):
                raise files.lacking(f"there is no question of the subset {subset!r}")
        examples = [self._to_example(subset, asked) for subset, asked in found]
        check_names([example.name for example in examples], str(self.data))
        return examples

    def score(self, example: Example, reply: Reply) -> float:
        """1 for the right word, by the official reading."""
        return float(_reads_yes(reply.text) == (example.answer == "yes"))

    def explain(self, example: Example, reply: Reply) -> str | None:
        """The word, yes or no; None of a reply with neither, which counts as yes."""
        if _reads_yes(reply.text) and "yes" not in reply.text.lower():
            return None
        return "yes" if _reads_yes(reply.text) else "no"

    def figures(self, records: Sequence[Record]) -> Sequence[Figure]:
        """Mean F1, then the five numbers of each subset."""
        figures = [
            statistic_figure(
                name=self.name,
                title=self.title,
                units=_count_pictures(records),
                statistic=_mean_f1,
                num=len(records),
                citation=self.citation,
                num_unread=count_unread(records),
            )
        ]
        for subset, own in by_group(records, 0).items():
            units = [next(iter(counts.values())) for counts in _count_pictures(own)]
            for key, (title, statistic) in _NUMBERS.items():
                figures.append(
                    statistic_figure(
                        name=f"{self.name}/{subset}{key}",
                        title=f"{subset}: {title}",
                        units=units,
                        statistic=_of_sum(statistic),
                        num=len(own),
                        num_unread=count_unread(own),
                        level=2 if key else 1,
                    )
                )
        return figures

    def submissions(self, records: Sequence[Record]) -> Mapping[str, str]:
        """A file of answers for each subset, as the official script takes them."""
        lines: dict[str, list[str]] = {}
        for record in records:
            row = {"question": record.example.facts["question"], "answer": record.reply.text}
            name = f"pope/{self.source}_pope_{record.example.groups[0]}_answers.json"
            lines.setdefault(name, []).append(json.dumps(row) + "\n")
        return {name: "".join(own) for name, own in lines.items()}

    def _released_questions(self, files: BenchmarkFiles) -> Iterator[tuple[str, _Asked]]:
        pictures = PictureFiles(files)
        for subset in self.subsets:
            [name, *others] = files.find(f"{self.source}_pope_{subset}.json")
            if others:
                raise files.lacking(f"there are {name} and {others}; leave one")
            for number, line in enumerate(files.read_text(name).split("\n"), 1):
                if not line.strip():
                    continue
                where = f"{name} line {number}"
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise DataError(f"{where} is no JSON: {error}. Download it again.") from error
                file = PurePosixPath(read_text(row, "image", where)).name
                yield (
                    subset,
                    (
                        read_text(row, "question_id", where),
                        file,
                        pictures.open(file, where),
                        read_text(row, "text", where),
                        _check(read_text(row, "label", where), where),
                    ),
                )

    def _to_example(self, subset: str, asked: _Asked) -> Example:
        number, file, picture, question, answer = asked
        text = f"{question}\n{self.hint}" if self.hint else question
        return Example(
            name=f"{subset}/{number}",
            conversation=put_question([picture, text], frame=self.frame),
            answer=answer,
            options=self.options,
            groups=(subset,),
            facts={"picture": file, "question": question},
        )


def _saved_questions(files: BenchmarkFiles) -> Iterator[tuple[str, _Asked]]:
    for where, row in split_rows(files, split_tables(files, "test")):
        yield (
            read_text(row, "category", where),
            (
                read_text(row, "question_id", where),
                read_text(row, "image_source", where),
                picture_from_cell(read_field(row, "image", where), where),
                read_text(row, "question", where),
                _check(read_text(row, "answer", where), where),
            ),
        )


def _check(answer: str, where: str) -> str:
    answer = answer.strip().lower()
    if answer not in ("yes", "no"):
        raise DataError(f"{where}: the answer is {answer!r}, not yes or no. Download it again.")
    return answer


def _reads_yes(text: str) -> bool:
    words = text.partition(".")[0].replace(",", "").split(" ")
    return not {"No", "not", "no"} & set(words)


def _count_pictures(records: Sequence[Record]) -> list[dict[str, Counts]]:
    """Of each picture the counts of its questions by subset."""
    pictures: dict[str, dict[str, list[int]]] = {}
    for record in records:
        counts = pictures.setdefault(record.example.facts["picture"], {})
        place = _PLACES[record.example.answer == "yes", _reads_yes(record.reply.text)]
        counts.setdefault(record.example.groups[0], [0, 0, 0, 0])[place] += 1
    return [{subset: tuple(own) for subset, own in each.items()} for each in pictures.values()]


def _add(counts: Sequence[Counts]) -> Counts:
    return tuple(sum(column) for column in zip(*counts, strict=True))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _f1(counts: Counts) -> float:
    hits, false, _, missed = counts
    return _share(2 * hits, 2 * hits + false + missed)


def _mean_f1(pictures: Sequence[Mapping[str, Counts]]) -> float:
    subsets: dict[str, list[Counts]] = {}
    for picture in pictures:
        for subset, counts in picture.items():
            subsets.setdefault(subset, []).append(counts)
    return sum(_f1(_add(counts)) for counts in subsets.values()) / len(subsets)


def _of_sum(statistic: Callable[[Counts], float]) -> Callable[[Sequence[Counts]], float]:
    return lambda units: statistic(_add(units))


_NUMBERS: Mapping[str, tuple[str, Callable[[Counts], float]]] = {
    "": ("F1", _f1),
    "/accuracy": ("accuracy", lambda c: _share(c[0] + c[2], sum(c))),
    "/precision": ("precision", lambda c: _share(c[0], c[0] + c[1])),
    "/recall": ("recall", lambda c: _share(c[0], c[0] + c[3])),
    "/yes_ratio": ("share of yes", lambda c: _share(c[0] + c[1], sum(c))),
}
"""Names and ways of the five numbers."""
