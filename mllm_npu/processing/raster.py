"""Raster: a decoded picture as an array, beside Pillow's own pictures.

Shape letters: H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True, slots=True, eq=False)
class Raster:
    """RGB pixels of a picture.

    Args:
        pixels: uint8 [H, W, 3], not to be changed.
    """

    pixels: NDArray[np.uint8]

    @property
    def width(self) -> int:
        """Pixels across."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Pixels down."""
        return int(self.pixels.shape[0])

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, as Pillow orders them."""
        return self.width, self.height


Picture = Image.Image | Raster
"""A decoded picture, whoever decoded it."""


def to_pillow(picture: Picture) -> Image.Image:
    """A picture for Pillow: a copy of a raster, else the very object."""
    return Image.fromarray(picture.pixels) if isinstance(picture, Raster) else picture
