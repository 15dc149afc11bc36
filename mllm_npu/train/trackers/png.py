"""Encode a picture as PNG without a library of pictures.

Shape letters: H height, W width.
Source: Portable Network Graphics (W3C Recommendation, third edition), sections 5 and 11.
"""

from __future__ import annotations

import struct
import zlib

import torch
from torch import Tensor

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EIGHT_BITS, _RGB = 8, 2


def encode_png(picture_3HW: Tensor) -> bytes:
    """The bytes of a PNG file.

    Args:
        picture_3HW: uint8, on any device.
    """
    _, height, width = picture_3HW.shape
    rows = picture_3HW.permute(1, 2, 0).reshape(height, 3 * width).cpu()
    # Each row begins with the number of its filter: 0, none.
    lines = torch.nn.functional.pad(rows, (1, 0)).contiguous()
    header = struct.pack(">IIBBBBB", width, height, _EIGHT_BITS, _RGB, 0, 0, 0)
    pixels = zlib.compress(lines.numpy().tobytes())
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
