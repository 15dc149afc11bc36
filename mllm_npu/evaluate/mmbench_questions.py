"""Questions of MMBench as its published files hold them, each with every order of its choices."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from mllm_npu.errors import DataError
from mllm_npu.evaluate.benchmark_files import BenchmarkFiles, Row
from mllm_npu.evaluate.benchmark_pictures import picture_from_cell
from mllm_npu.evaluate.benchmark_rows import optional_text, read_field, read_text, split_tables
from mllm_npu.evaluate.choices import LETTERS
from mllm_npu.processing.raster import Picture

_LAYOUT = """\
mmbench_dev_en_20231003.tsv, MMBench_DEV_EN.tsv, mmbench_test_cn_20231003.tsv, ...
or the tables of a saved Hugging Face data set with the pictures in them:
en/dev-00000-of-00001.parquet"""

_PLACE = 1_000_000
"""What the number of a row grows by with each rotation of the choices of its question."""
_LONGEST_REFERENCE = 64
"""A picture so short is the number of the row that has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MMBenchQuestion:
    """A question with its choices in one order.

    Args:
        number: of the row; the same for all orders but for millions.
        text: the question.
        hint: what is told before it; may be empty.
        choices: in their order.
        answer: letter of the right one; empty where it is not published.
        ability: of the second level.
        leaf: ability of the third level, within that.
        picture: that is asked about.
    """

    number: int
    text: str
    hint: str
    choices: tuple[str, ...]
    answer: str
    ability: str
    leaf: str
    picture: Picture

    @property
    def name(self) -> str:
        """What all orders of its choices have in common."""
        return str(self.number % _PLACE)

    def rotated(self, places: int) -> MMBenchQuestion:
        """The same question with each choice so many places further to the front."""
        choices = (*self.choices[places:], *self.choices[:places])
        answer = self.answer
        if answer:
            answer = LETTERS[(LETTERS.index(answer) - places) % len(choices)]
        return replace(self, number=self.number + places * _PLACE, choices=choices, answer=answer)


def read_mmbench(path: str | Path, split: str, language: str) -> Iterator[MMBenchQuestion]:
    """All orders of all questions, those of one question side by side.

    Args:
        path: folder, zip or file, or a saved data set.
        split: "dev" or "test".
        language: "en" or "cn".

    Raises:
        DataError: files or fields are missing or broken.
    """
    files = BenchmarkFiles(path, layout=_LAYOUT)
    name = _find_table(files, split, language)
    rows: dict[int, tuple[str, Row]] = {}
    for place, row in enumerate(files.rows(name), 1):
        where = f"{name} row {place}"
        number = _read_number(row, where)
        if number in rows:
            raise DataError(f"{where}: the index {number} is there twice. Download it again.")
        rows[number] = (where, row)
    groups: dict[int, list[int]] = defaultdict(list)
    for number in rows:
        groups[number % _PLACE].append(number)
    for main, numbers in groups.items():
        yield from _read_orders(main, numbers, rows)


def _find_table(files: BenchmarkFiles, split: str, language: str) -> str:
    if files.path.is_file() and files.path.suffix == ".tsv":
        return files.find("*.tsv")[0]
    if files.has("*.tsv"):
        # The first edition of the English files names no language.
        starts = [f"mmbench_{split}_{language}"] + [f"mmbench_{split}_2"] * (language == "en")
        names = [
            name
            for name in files.find("*.tsv")
            if PurePosixPath(name).name.lower().startswith(tuple(starts))
        ]
    else:
        found = split_tables(files, split)
        names = [name for name in found if language in PurePosixPath(name).parts] or found
    if len(names) != 1:
        raise files.lacking(
            f"{len(names)} tables are of the split {split!r} in {language!r}, give data=FILE "
            f"for one: {names}"
        )
    return names[0]


def _read_orders(
    main: int, numbers: Sequence[int], rows: Mapping[int, tuple[str, Row]]
) -> Iterator[MMBenchQuestion]:
    """The rows of a question; where there is one only, its rotations are made."""
    if main not in rows:
        raise DataError(
            f"{rows[numbers[0]][0]}: index {numbers[0]} rotates the question {main}, which is not "
            "there. Download it again."
        )
    where, row = rows[main]
    picture = _read_picture(row, where, rows)
    first = _to_question(main, row, where, picture)
    if len(numbers) == 1:
        yield from (first.rotated(places) for places in range(len(first.choices)))
        return
    for number in sorted(numbers):
        where, row = rows[number]
        yield _to_question(number, row, where, picture)


def _to_question(number: int, row: Row, where: str, picture: Picture) -> MMBenchQuestion:
    given = [optional_text(row, letter) for letter in LETTERS]
    choices = tuple(given[: given.index("")])
    answer = optional_text(row, "answer").strip()
    if len(choices) < 2 or (answer and answer not in LETTERS[: len(choices)]):
        raise DataError(
            f"{where}: the right answer is {answer!r} and the choices are {list(choices)}. "
            "Download it again."
        )
    ability = "l2-category" if "l2-category" in row else "L2-category"
    return MMBenchQuestion(
        number=number,
        text=read_text(row, "question", where),
        hint=optional_text(row, "hint"),
        choices=choices,
        answer=answer,
        ability=read_text(row, ability, where),
        leaf=read_text(row, "category", where),
        picture=picture,
    )


def _read_number(row: Row, where: str) -> int:
    text = read_text(row, "index", where)
    if not text.isdigit():
        raise DataError(f"{where}: the index is {text!r}, it should be a number.")
    return int(text)


def _read_picture(row: Row, where: str, rows: Mapping[int, tuple[str, Row]]) -> Picture:
    cell = read_field(row, "image", where)
    is_reference = isinstance(cell, str) and len(cell) <= _LONGEST_REFERENCE and cell.isdigit()
    if not is_reference:
        return picture_from_cell(cell, where)
    if int(cell) not in rows:
        raise DataError(
            f"{where}: its picture is that of the row with index {cell}, which is not there. "
            "Download it again."
        )
    return picture_from_cell(rows[int(cell)][1].get("image"), rows[int(cell)][0])
