"""Put pictures where a text has marks for them."""

from __future__ import annotations

import re
from collections.abc import Callable

from mllm_npu.processing.raster import Picture


def weave(text: str, mark: str, look_up: Callable[[str], Picture]) -> list[str | Picture]:
    """Texts and pictures in reading order.

    Args:
        text: with marks in it.
        mark: pattern of a mark with one group, its name.
        look_up: gives the picture of a name.
    """
    pieces = re.split(mark, text)
    return [
        look_up(piece) if number % 2 else piece
        for number, piece in enumerate(pieces)
        if piece or number % 2
    ]
