"""Pictures of a benchmark, from its files or its rows: the size is read now, the pixels later."""

from __future__ import annotations

import base64
import binascii
import hashlib
import zipfile
from collections import defaultdict
from pathlib import PurePosixPath
from typing import Any

from mllm_npu.errors import DataError
from mllm_npu.evaluate.benchmark_files import BenchmarkFiles
from mllm_npu.processing.image_transform import read_size
from mllm_npu.processing.jpeg import decode_picture
from mllm_npu.processing.raster import DecodedPicture, StoredPicture

_HEAD_BYTES = 1 << 16
"""The size of nearly every picture stands in so much of its file."""
_MOST_BYTES = 1 << 28
"""A picture of a zip that is larger when unpacked is refused."""
_DIGEST_BYTES = 16


class PictureFiles:
    """Pictures that lie beside the questions; a file is read when its pixels are asked for.

    A benchmark of tens of thousands of pictures does not fit in memory, and a file is found by its
    name in a table, since looking through all names for each would take hours.

    Args:
        files: folder or zip.
    """

    def __init__(self, files: BenchmarkFiles) -> None:
        self._files = files
        self._by_last_name: dict[str, list[str]] = defaultdict(list)
        for name in files.find("*"):
            self._by_last_name[PurePosixPath(name).name].append(name)
        is_zip = files.path.is_file() and zipfile.is_zipfile(files.path)
        self._archive = zipfile.ZipFile(files.path) if is_zip else None

    def has(self, name: str) -> bool:
        """Whether there is a file of that path, or end of a path."""
        return self._find(name) is not None

    def open(self, name: str, where: str) -> StoredPicture:
        """The picture of a file.

        Its ``data`` is a digest that tells the file from others, not its bytes.

        Args:
            name: its path, or the end of it.
            where: the row that names it, for the message.

        Raises:
            DataError: there is no such file, or it is no picture.
        """
        found = self._find(name)
        if found is None:
            raise self._files.lacking(f"{where} names {name}, which is not there")

        def decode(_: bytes) -> DecodedPicture:
            return _decode(self._read(found), f"{where}, {found}")

        head = self._read(found, _HEAD_BYTES)
        try:
            size = read_size(head)
        except DataError:
            size = _read_size(self._read(found), f"{where}, {found}")
        digest = hashlib.blake2b(head, digest_size=_DIGEST_BYTES)
        digest.update(f"{PurePosixPath(found).name} {self._num_bytes(found)}".encode())
        return StoredPicture(digest.digest(), size, decode)

    def _find(self, name: str) -> str | None:
        named = self._by_last_name.get(PurePosixPath(name).name, [])
        return next((path for path in named if path == name or path.endswith(f"/{name}")), None)

    def _num_bytes(self, name: str) -> int:
        if self._archive is not None:
            return self._archive.getinfo(name).file_size
        is_folder = self._files.path.is_dir()
        return (self._files.path / name if is_folder else self._files.path).stat().st_size

    def _read(self, name: str, most: int = -1) -> bytes:
        try:
            if self._archive is not None:
                if self._archive.getinfo(name).file_size > _MOST_BYTES:
                    raise DataError(f"{name} in {self._files.path} is too large for a picture.")
                with self._archive.open(name) as member:
                    return member.read(most)
            if self._files.path.is_dir():
                with (self._files.path / name).open("rb") as file:
                    return file.read(most)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{name} in {self._files.path} cannot be read: {error}. Download it again."
            ) from error
        return self._files.read_bytes(name)


def picture_from_bytes(data: bytes, where: str) -> StoredPicture:
    """A picture of encoded bytes.

    Args:
        data: a whole file.
        where: the row it stands in, for the message.

    Raises:
        DataError: it is no picture; later, that it is broken.
    """
    return StoredPicture(data, _read_size(data, where), lambda held: _decode(held, where))


def picture_from_base64(text: str, where: str) -> StoredPicture:
    """A picture of bytes that are spelt in base64.

    Raises:
        DataError: it is no base64, or no picture.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(
            f"{where}: its picture is no base64 ({error}). Download the file again."
        ) from error
    return picture_from_bytes(data, where)


def picture_from_cell(cell: Any, where: str) -> StoredPicture:
    """A picture of a table: the bytes of a Hugging Face ``Image``, bytes, or text in base64.

    Raises:
        DataError: the cell holds no picture.
    """
    match cell:
        case {"bytes": bytes(data)} | bytes(data):
            return picture_from_bytes(data, where)
        case str(text):
            return picture_from_base64(text, where)
    raise DataError(
        f"{where}: a picture was asked for, the cell holds {type(cell).__name__}. Save the data "
        "set with its pictures in it, not with paths to them."
    )


def _read_size(data: bytes, where: str) -> tuple[int, int]:
    try:
        return read_size(data)
    except DataError as error:
        raise DataError(
            f"{where}: its picture cannot be read. {error} Download the file again."
        ) from error


def _decode(data: bytes, where: str) -> DecodedPicture:
    try:
        return decode_picture(data)
    except DataError as error:
        raise DataError(f"{where}: its picture cannot be decoded. {error}") from error
