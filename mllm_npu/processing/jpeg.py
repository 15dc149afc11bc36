"""Decode the pictures of training rows: plain JPEGs the quick way, everything else by Pillow.

Shape letters: H W pixels.
"""

from __future__ import annotations

import importlib.util

import numpy as np
from numpy.typing import NDArray

from mllm_npu.errors import DataError
from mllm_npu.processing.image_transform import MAX_PIXELS, open_picture, read_orientation
from mllm_npu.processing.raster import Picture, Raster

_SIGNATURE = b"\xff\xd8\xff"
_APP1, _START_OF_SCAN = 0xE1, 0xDA
_FRAMES = frozenset(
    (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
)
_EXIF_MARK = b"Exif\x00\x00"
_QUICK_COMPONENTS = (1, 3)
_HAS_QUICK_DECODER = importlib.util.find_spec("simplejpeg") is not None


def decode_picture(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode a picture as ``open_picture`` does, JPEGs faster where simplejpeg is there.

    Both decode with libjpeg-turbo, to the same values. What simplejpeg does not do as people see it
    (a picture that EXIF turns, four colours, broken data) is left to Pillow and its refusals.

    Raises:
        DataError: as ``open_picture``.
    """
    if _HAS_QUICK_DECODER and data.startswith(_SIGNATURE):
        pixels = _decode_plain(data, max_pixels)
        if pixels is not None:
            return Raster(pixels)
    return open_picture(data, max_pixels=max_pixels)


def _decode_plain(data: bytes, max_pixels: int) -> NDArray[np.uint8] | None:
    """Pixels of a plain JPEG [H, W, 3]; None where Pillow must look at it."""
    import simplejpeg  # noqa: PLC0415 - optional

    num_pixels, num_components, has_exif = _read_head(data)
    if not 0 < num_pixels <= max_pixels or num_components not in _QUICK_COMPONENTS:
        return None
    if has_exif and _is_turned(data):
        return None
    try:
        return np.asarray(simplejpeg.decode_jpeg(data, colorspace="RGB"))
    except ValueError:
        return None


def _read_head(data: bytes) -> tuple[int, int, bool]:
    """Number of pixels, of colour components, and whether there are EXIF notes.

    Zeros where the head is broken.

    Source: JPEG (ITU T.81, B.1.1, B.2.2): a marker, then a length of two bytes that counts itself.
    """
    place, num_pixels, num_components, has_exif = 2, 0, 0, False
    while place + 10 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == _START_OF_SCAN:
            return num_pixels, num_components, has_exif
        if marker in _FRAMES:
            height = data[place + 5] << 8 | data[place + 6]
            num_pixels = height * (data[place + 7] << 8 | data[place + 8])
            num_components = data[place + 9]
        elif marker == _APP1 and data[place + 4 : place + 10] == _EXIF_MARK:
            has_exif = True
        place += 2 + (data[place + 2] << 8 | data[place + 3])
    return 0, 0, False


def _is_turned(data: bytes) -> bool:
    """Whether EXIF turns or mirrors the picture; what cannot be read counts as turned."""
    try:
        return read_orientation(data) != 1
    except DataError:
        return True
