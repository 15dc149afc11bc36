"""Read the published files of a benchmark: a folder, a zip, or a saved Hugging Face data set."""

from __future__ import annotations

import csv
import io
import json
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from mllm_npu.errors import ConfigError, DataError

Row = Mapping[str, Any]

_BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)
"""Damaged, cut off, or (RuntimeError) encrypted or packed in a way that is not known."""

_MOST_BYTES = 4 << 30
"""A file of a zip that is larger when unpacked is refused."""


class BenchmarkFiles:
    """The files of a benchmark by their names below its folder, wherever that begins.

    Args:
        path: a folder, a zip (the ``.zip`` at the end of its name may be left out), or one file.
        layout: what is expected there, as a tree; it is shown where something is missing.

    Raises:
        DataError: there is nothing at the path.
    """

    def __init__(self, path: str | Path, *, layout: str) -> None:
        self.path, self.layout = _beside(Path(path)), layout
        if self.path.is_dir():
            files = (file for file in self.path.rglob("*") if file.is_file())
            self._names = sorted(file.relative_to(self.path).as_posix() for file in files)
        elif zipfile.is_zipfile(self.path):
            with zipfile.ZipFile(self.path) as archive:
                infos = [info for info in archive.infolist() if not info.is_dir()]
            self._names = sorted(info.filename for info in infos)
        elif self.path.is_file():
            self._names = [self.path.name]
        else:
            raise self.lacking("nothing is there")

    def lacking(self, found: str) -> DataError:
        """An error that says what is expected, with the tree as a note."""
        error = DataError(
            f"Benchmark files were asked for at {self.path}, {found}. Put there, as a folder or a "
            "zip, what the tree shows."
        )
        error.add_note(self.layout)
        return error

    def find(self, pattern: str) -> list[str]:
        """Names whose end matches a pattern of `fnmatch` ("test/*_test.csv"), in order.

        Raises:
            DataError: there is none.
        """
        parts = len(PurePosixPath(pattern).parts)
        names = [
            name
            for name in self._names
            if fnmatchcase("/".join(PurePosixPath(name).parts[-parts:]), pattern)
            and "__MACOSX" not in name
        ]
        if not names:
            raise self.lacking(f"there is no {pattern}")
        return names

    def find_one(self, pattern: str) -> str:
        """The only name whose end matches a pattern.

        Raises:
            DataError: there is none, or more than one.
        """
        names = self.find(pattern)
        if len(names) > 1:
            raise self.lacking(f"there are {len(names)} of {pattern}: {', '.join(names)}")
        return names[0]

    def has(self, pattern: str) -> bool:
        """Whether there is a file whose name ends so."""
        try:
            return bool(self.find(pattern))
        except DataError:
            return False

    def read_bytes(self, name: str) -> bytes:
        """Content of a file.

        Args:
            name: from ``find``.

        Raises:
            DataError: it cannot be read.
        """
        try:
            if self.path.is_dir():
                return (self.path / name).read_bytes()
            if zipfile.is_zipfile(self.path):
                with zipfile.ZipFile(self.path) as archive:
                    if archive.getinfo(name).file_size > _MOST_BYTES:
                        raise DataError(f"{name} in {self.path} is too large. Unpack the zip.")
                    return archive.read(name)
            return self.path.read_bytes()
        except (*_BROKEN_ZIP, OSError, KeyError) as error:
            raise DataError(
                f"{name} in {self.path} cannot be read: {error}. Download it again."
            ) from error

    def read_text(self, name: str) -> str:
        """Content of a text file, UTF-8 with or without a byte order mark."""
        try:
            return self.read_bytes(name).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{name} in {self.path} is no UTF-8 text: {error}. Download it again."
            ) from error

    def read_json(self, name: str) -> Any:
        """Content of a JSON file."""
        try:
            return json.loads(self.read_text(name))
        except json.JSONDecodeError as error:
            raise DataError(
                f"{name} in {self.path} is no JSON: {error}. Download it again."
            ) from error

    def rows(self, name: str, *, fields: Sequence[str] = ()) -> Iterator[Row]:
        """Rows of a table: .csv, .tsv, .json (a list), .jsonl, .parquet or .arrow.

        Args:
            name: from ``find``.
            fields: names of the columns of a .csv without a line of names.

        Raises:
            DataError: it cannot be read.
            ConfigError: a library for it is missing.
        """
        match PurePosixPath(name).suffix:
            case ".csv" | ".tsv" as suffix:
                yield from self._csv_rows(name, "\t" if suffix == ".tsv" else ",", fields)
            case ".jsonl":
                # Texts in JSON may hold what `splitlines` takes for the end of a line.
                for number, line in enumerate(self.read_text(name).split("\n"), 1):
                    if line.strip():
                        yield self._parse(line, f"{name} line {number}")
            case ".json":
                rows = self.read_json(name)
                if not isinstance(rows, list):
                    raise DataError(f"{name} in {self.path} is no list of rows. Download it again.")
                yield from rows
            case ".parquet" | ".arrow":
                yield from self._arrow_rows(name)
            case suffix:
                raise DataError(f"{name} in {self.path} is no table that is known ({suffix}).")

    def _csv_rows(self, name: str, delimiter: str, fields: Sequence[str]) -> Iterator[Row]:
        csv.field_size_limit(sys.maxsize)
        text = io.StringIO(self.read_text(name), newline="")
        reader = csv.DictReader(text, fieldnames=list(fields) or None, delimiter=delimiter)
        for row in reader:
            if None in row or None in row.values():
                raise DataError(
                    f"{name} in {self.path}, line {reader.line_num}: {len(reader.fieldnames or ())}"
                    " columns are expected there. Download it again."
                )
            yield row

    def _arrow_rows(self, name: str) -> Iterator[Row]:
        try:
            import pyarrow.ipc as ipc  # noqa: PLC0415 - slow import, in an extra
            import pyarrow.parquet as parquet  # noqa: PLC0415 - slow import, in an extra
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"{name} is read by pyarrow, which is not installed. Install it: "
                "pip install 'mllm-npu[data]'"
            ) from error
        source = io.BytesIO(self.read_bytes(name))
        try:
            if name.endswith(".parquet"):
                for batch in parquet.ParquetFile(source).iter_batches():
                    yield from batch.to_pylist()
                return
            with ipc.open_stream(source) as stream:
                for batch in stream:
                    yield from batch.to_pylist()
        except (ValueError, OSError) as error:  # what pyarrow's own errors are
            raise DataError(
                f"{name} in {self.path} cannot be read: {error}. Download it again."
            ) from error

    def _parse(self, line: str, place: str) -> Row:
        try:
            row: Row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{place} in {self.path} is no JSON: {error}. Download it again."
            ) from error
        return row


def _beside(path: Path) -> Path:
    """The path, or the zip of that name where there is only that."""
    archive = path.with_name(f"{path.name}.zip")
    return archive if path.name and not path.exists() and archive.is_file() else path


def check_names(names: Sequence[str], where: str) -> None:
    """Refuse two examples of one name, since their answers could not be told apart.

    Raises:
        DataError: with the first name that is there twice.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f"{where}: the example {name!r} is there twice. Download it again.")
        seen.add(name)
