"""Stored picture: encoded bytes under the extension that fits them, kept as they are if possible.

JPEG, PNG and WebP keep their bytes. Other formats that can be decoded (BMP, GIF, TIFF, PPM) become
PNG: their first frame, upright, in RGB.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

from mllm_npu.data.row import measure_picture
from mllm_npu.errors import DataError, SkipSample
from mllm_npu.processing.image_transform import open_picture

MAX_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPicture:
    """A picture as a member of a row.

    Args:
        extension: ``jpg``, ``png`` or ``webp``.
        data: its encoded bytes.
    """

    extension: str
    data: bytes


def store_picture(data: bytes) -> StoredPicture:
    """Choose the extension by the bytes; the header is read, the picture is not decoded.

    Raises:
        SkipSample: if the bytes are no picture, or not one that can be read.
    """
    if not data:
        raise SkipSample("picture empty")
    if len(data) > MAX_BYTES:
        raise SkipSample(f"picture file too large: {len(data)} bytes")
    extension = sniff(data)
    if extension:
        try:
            measure_picture(data)
        except SkipSample as error:
            raise SkipSample(f"picture header broken: {extension}, {len(data)} bytes") from error
        return StoredPicture(extension=extension, data=data)
    try:
        picture = open_picture(data)
    except DataError as error:
        raise SkipSample(f"not a picture: begins with {data[:8]!r}") from error
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    return StoredPicture(extension="png", data=encoded.getvalue())


def sniff(data: bytes) -> str:
    """``jpg``, ``png`` or ``webp`` by the first bytes, empty for everything else."""
    if data[:3] == b"\xff\xd8\xff":
        return "jpg"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return ""
