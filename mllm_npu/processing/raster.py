"""Pictures beside Pillow's: decoded into an array, or stored and decoded when they are needed.

Shape letters: H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
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


DecodedPicture = Image.Image | Raster


@dataclass(frozen=True, slots=True, eq=False)
class StoredPicture:
    """A picture of known size whose pixels are decoded when they are asked for.

    So the texts of a whole pack are laid out before its first pixel is touched, and a picture's
    pixels live only while they are cut.

    Args:
        data: the encoded bytes.
        size: width and height as people see it.
        decoder: decodes the bytes.
    """

    data: bytes
    size: tuple[int, int]
    decoder: Callable[[bytes], DecodedPicture]

    @property
    def width(self) -> int:
        """Pixels across."""
        return self.size[0]

    @property
    def height(self) -> int:
        """Pixels down."""
        return self.size[1]


Picture = DecodedPicture | StoredPicture
"""A picture, in whatever state."""


def decoded(picture: Picture) -> DecodedPicture:
    """A picture with pixels; the very object where it has them already.

    Raises:
        DataError: if stored bytes cannot be decoded.
    """
    return picture.decoder(picture.data) if isinstance(picture, StoredPicture) else picture


def to_pillow(picture: Picture) -> Image.Image:
    """A picture for Pillow: a copy of a raster, else the very object.

    Raises:
        DataError: as ``decoded``.
    """
    pixels = decoded(picture)
    return Image.fromarray(pixels.pixels) if isinstance(pixels, Raster) else pixels
