"""Rows of a benchmark: which tables hold a split, and fields that are there or refused by name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from mllm_npu.errors import DataError
from mllm_npu.evaluate.benchmark_files import BenchmarkFiles, Row

_SPLITS = ("train", "dev", "val", "validation", "test")
_ALIASES = {"val": ("val", "validation"), "validation": ("validation", "val")}


def split_tables(files: BenchmarkFiles, split: str) -> list[str]:
    """Names of the .parquet and .arrow files that hold a split of a saved Hugging Face data set.

    The split is a word of the file's name (``test-00000-of-00002.parquet``) or its folder
    (``test/data-00000-of-00001.arrow``). Where no name says a split, all tables are of it.

    Raises:
        DataError: there is none.
    """
    names = [
        name
        for suffix in ("parquet", "arrow")
        if files.has(f"*.{suffix}")
        for name in files.find(f"*.{suffix}")
    ]
    wanted = _ALIASES.get(split, (split,))
    found = [name for name in names if _splits_of(name) & set(wanted)]
    if not found and not any(_splits_of(name) for name in names):
        found = names
    if not found:
        raise files.lacking(f"there is no table of the split {split!r}")
    return found


def split_rows(files: BenchmarkFiles, names: Sequence[str]) -> Iterator[tuple[str, Row]]:
    """Each row of some tables, with words that say where it stands."""
    for name in names:
        for number, row in enumerate(files.rows(name), 1):
            yield f"{name} row {number}", row


def read_field(row: Row, name: str, where: str) -> Any:
    """A field that must be there.

    Args:
        row: of a table.
        name: of the field.
        where: the row, for the message.

    Raises:
        DataError: it is not there.
    """
    if name not in row:
        raise DataError(
            f"{where}: the field {name!r} was asked for, it has {sorted(row)}. Is this the "
            "published file? Download it again."
        )
    return row[name]


def read_text(row: Row, name: str, where: str) -> str:
    """A field that must be there and hold a text or a number, as text.

    Raises:
        DataError: it is not there or holds something else.
    """
    value = read_field(row, name, where)
    if not isinstance(value, str | int | float):
        raise DataError(
            f"{where}: the field {name!r} should be a text, it is {value!r}. Download it again."
        )
    return str(value)


def optional_text(row: Row, name: str) -> str:
    """A field as text; empty where it is not there, is null, or says "nan"."""
    value = row.get(name)
    if value is None or value != value or value == "nan":
        return ""
    return str(value)


def _splits_of(name: str) -> set[str]:
    *folders, last = PurePosixPath(name).parts
    words = set(re.split(r"[^a-z]+", last.lower()))
    return (words | {folder.lower() for folder in folders[-1:]}) & set(_SPLITS)
