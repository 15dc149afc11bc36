"""Row: one sample as its shard stores it, a key and its members, with careful readers for them."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from mllm_npu.errors import DataError, PictureTooLargeError, SkipSample
from mllm_npu.processing.image_transform import read_size
from mllm_npu.processing.jpeg import store_picture
from mllm_npu.processing.raster import Picture, decoded

Decode = Callable[[bytes], Picture]

PICTURE_EXTENSIONS = ("png", "jpg", "jpeg", "webp")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_TEXTS = (b"iTXt", b"tEXt", b"zTXt")
_PNG_NOTES = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")
"""Keywords of texts that may say how a picture is turned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One sample of a shard.

    Args:
        key: name of the row, what stands before the first dot of its members' file names.
        members: contents by what stands after that dot (``json``, ``png``, ``0.png``), in the
            order of the shard.
        rendered: pictures that were drawn at read time and stand for members of that name.
        kept: takes every decoded picture so that it is decoded once; None keeps none.
        decode: turns the bytes of a picture into pixels, or into what does so later.
    """

    key: str
    members: Mapping[str, bytes]
    rendered: Mapping[str, Image.Image] = field(default_factory=dict)
    kept: dict[str, Picture] | None = field(default=None, compare=False, repr=False)
    decode: Decode = field(default=store_picture, compare=False, repr=False)

    def json(self) -> dict[str, Any]:
        """The ``json`` member.

        Raises:
            SkipSample: if it is missing, broken, or not an object.
        """
        if "json" not in self.members:
            raise SkipSample("json member missing")
        try:
            value = json.loads(self.members["json"])
        except (ValueError, RecursionError) as error:
            raise SkipSample("json member broken") from error
        if not isinstance(value, dict):
            raise SkipSample("json member is not an object")
        return value

    def text(self, extension: str = "txt") -> str:
        """A text member without the blanks around it.

        Raises:
            SkipSample: if it is missing or not UTF-8.
        """
        if extension not in self.members:
            raise SkipSample(f"{extension} member missing")
        try:
            return self.members[extension].decode().strip()
        except UnicodeDecodeError as error:
            raise SkipSample(f"{extension} member is not UTF-8") from error

    def picture_names(self) -> list[str]:
        """Members that are pictures, in the order of the shard, then those rendered."""
        stored = [name for name in self.members if is_picture_name(name)]
        return stored + [name for name in self.rendered if name not in self.members]

    def picture(self, name: str | None = None) -> Picture:
        """A picture as RGB, not to be changed; without a name the first one of the row.

        Raises:
            SkipSample: if it is missing, too large or cannot be read; that of a JPEG shows only
                when its pixels are decoded.
        """
        name = self._find(name)
        if name in self.rendered:
            return self.rendered[name]
        if self.kept is None:
            return self._decode(name)
        if name not in self.kept:
            self.kept[name] = self._decode(name)
        return self.kept[name]

    def picture_size(self, name: str | None = None) -> tuple[int, int]:
        """Width and height of a picture without decoding it.

        Raises:
            SkipSample: as ``picture``.
        """
        name = self._find(name)
        if name in self.rendered:
            return self.rendered[name].size
        return measure_picture(self.members[name])

    def _decode(self, name: str) -> Picture:
        try:
            picture = self.decode(self.members[name])
            return picture if self.kept is None else decoded(picture)
        except PictureTooLargeError as error:
            raise SkipSample("picture has too many pixels") from error
        except DataError as error:
            raise SkipSample("picture cannot be read") from error

    def _find(self, name: str | None) -> str:
        if name is None:
            names = self.picture_names()
            if not names:
                raise SkipSample("picture missing")
            return names[0]
        if name not in self.rendered and name not in self.members:
            raise SkipSample("picture missing")
        return name


def is_picture_name(name: str) -> bool:
    """Whether a member of this name is a picture (``png``, ``0.jpg``, ...)."""
    return name.rsplit(".", 1)[-1].lower() in PICTURE_EXTENSIONS


def measure_picture(data: bytes) -> tuple[int, int]:
    """Width and height of a picture as people see it, from its header.

    Raises:
        SkipSample: if it is not a picture.
    """
    if data[:8] == _PNG_SIGNATURE and _is_plain_png(data):
        width, height = struct.unpack(">II", data[16:24])
        return width, height
    try:
        return read_size(data)
    except DataError as error:
        raise SkipSample("picture cannot be read") from error


def _is_plain_png(data: bytes) -> bool:
    """Whether a whole PNG has no notes that might turn it; Pillow decodes it to find none.

    Source: PNG (ISO/IEC 15948, 5.3): length, type, data and checksum of each chunk.
    """
    place = 8
    while place + 12 <= len(data):
        kind = data[place + 4 : place + 8]
        if kind == b"IEND":
            return True
        if kind == b"eXIf" or (
            kind in _PNG_TEXTS and data[place + 8 : place + 32].startswith(_PNG_NOTES)
        ):
            return False
        place += 12 + int.from_bytes(data[place : place + 4], "big")
    return False
