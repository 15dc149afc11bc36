"""Decode the pictures of training rows: plain JPEGs the quick way, everything else by Pillow."""

from __future__ import annotations

import importlib.util

import numpy as np

from mllm_npu.errors import DataError
from mllm_npu.processing.image_transform import MAX_PIXELS, open_picture, read_orientation
from mllm_npu.processing.raster import DecodedPicture, Picture, Raster, StoredPicture

_SIGNATURE = b"\xff\xd8\xff"
_APP1, _START_OF_SCAN = 0xE1, 0xDA
_FRAMES = frozenset(
    (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
)
_QUICK_COMPONENTS = (1, 3)
_HAS_QUICK_DECODER = importlib.util.find_spec("simplejpeg") is not None


def store_picture(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """A plain JPEG to be decoded later where simplejpeg is there; anything else decoded now.

    Raises:
        DataError: as ``open_picture``, for what is decoded now.
    """
    size = _plain_size(data, max_pixels)
    if size is None:
        return open_picture(data, max_pixels=max_pixels)
    return StoredPicture(data, size, decode_picture)


def decode_picture(data: bytes, *, max_pixels: int = MAX_PIXELS) -> DecodedPicture:
    """Decode a picture as ``open_picture`` does, JPEGs faster where simplejpeg is there.

    Both decode with libjpeg-turbo, to the same values. What simplejpeg does not do as people see it
    (a picture that its notes turn, four colours, broken data) is left to Pillow and its refusals.

    Raises:
        DataError: as ``open_picture``.
    """
    if _plain_size(data, max_pixels) is not None:
        import simplejpeg  # noqa: PLC0415 - optional

        try:
            return Raster(np.asarray(simplejpeg.decode_jpeg(data, colorspace="RGB")))
        except ValueError:
            pass  # Pillow says what is wrong with it.
    return open_picture(data, max_pixels=max_pixels)


def _plain_size(data: bytes, max_pixels: int) -> tuple[int, int] | None:
    """Width and height of a JPEG that simplejpeg decodes as people see it; None of all else."""
    if not _HAS_QUICK_DECODER or not data.startswith(_SIGNATURE):
        return None
    width, height, num_components, has_notes = _read_head(data)
    if not 0 < width * height <= max_pixels or num_components not in _QUICK_COMPONENTS:
        return None
    return None if has_notes and _is_turned(data) else (width, height)


def _read_head(data: bytes) -> tuple[int, int, int, bool]:
    """Width, height, number of colour components, and whether there are notes (EXIF, XMP).

    Zeros where the head is broken.

    Source: JPEG (ITU T.81, B.1.1, B.2.2): a marker, then a length of two bytes that counts itself.
    """
    place, width, height, num_components, has_notes = 2, 0, 0, 0, False
    while place + 10 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == _START_OF_SCAN:
            return width, height, num_components, has_notes
        if marker in _FRAMES:
            height = data[place + 5] << 8 | data[place + 6]
            width = data[place + 7] << 8 | data[place + 8]
            num_components = data[place + 9]
        has_notes |= marker == _APP1
        place += 2 + (data[place + 2] << 8 | data[place + 3])
    return 0, 0, 0, False


def _is_turned(data: bytes) -> bool:
    """Whether its notes turn or mirror the picture; what cannot be read counts as turned."""
    try:
        return read_orientation(data) != 1
    except DataError:
        return True
