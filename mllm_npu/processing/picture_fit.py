"""Fit a picture into a size without changing its shape: borders around it, or edges cut off.

Shape letters: H W pixels.

Source: the image processors of LLaVA in transformers, whose pixels these are to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from mllm_npu.processing.image_transform import MAX_PIXELS, stretch
from mllm_npu.processing.raster import DecodedPicture, Picture, decoded, to_pillow

_LONGEST_SHAPE = 64
"""Times a picture may be as long as it is wide before its ends are cut off unseen."""


def fit_inside(picture: Picture, size: tuple[int, int], *, exact: bool = True) -> Tensor:
    """Stretch a picture until it touches two borders; what is left beside it is black.

    Args:
        picture: of any size.
        size: height and width to fit into.
        exact: as of ``stretch``.

    Returns:
        uint8 [3, H, W].
    """
    height, width = size
    across, down = width / picture.width, height / picture.height
    if across < down:
        inner = (min(math.ceil(picture.height * across), height), width)
    else:
        inner = (height, min(math.ceil(picture.width * down), width))
    pixels = stretch(picture, inner, exact=exact)
    if inner == size:
        return pixels
    canvas = torch.zeros(height, width, 3, dtype=torch.uint8).permute(2, 0, 1)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    canvas[:, top : top + inner[0], left : left + inner[1]] = pixels
    return canvas


def pad_to_square(picture: Picture, background: Sequence[int]) -> DecodedPicture:
    """Put a picture into the middle of a square of one colour.

    A square of more pixels than a picture may have is not made; the picture is made smaller first.

    Args:
        picture: of any size.
        background: red, green and blue, 0..255.
    """
    if picture.width == picture.height:
        return decoded(picture)
    edge = max(picture.width, picture.height)
    pillow = to_pillow(picture).convert("RGB")
    if edge**2 > MAX_PIXELS:
        factor = math.isqrt(MAX_PIXELS) / edge
        shape = (max(1, int(side * factor)) for side in pillow.size)
        pillow = pillow.resize((next(shape), next(shape)), Image.Resampling.BICUBIC)
        edge = max(pillow.size)
    red, green, blue = background
    square = Image.new("RGB", (edge, edge), (red, green, blue))
    square.paste(pillow, ((edge - pillow.width) // 2, (edge - pillow.height) // 2))
    return square


def crop_centre(
    picture: Picture, size: int, *, shortest_edge: int | None = None, exact: bool = True
) -> Tensor:
    """Stretch a picture until its shorter edge has a length, and keep the middle.

    Args:
        picture: of any size. Of one that is more than 64 times as long as wide only the middle is
            looked at, since the rest is cut off in any case.
        size: edge of the square that is kept.
        shortest_edge: at least ``size``; None means that.
        exact: as of ``stretch``.

    Returns:
        uint8 [3, size, size].
    """
    edge = size if shortest_edge is None else shortest_edge
    short, long = sorted((picture.width, picture.height))
    if long > _LONGEST_SHAPE * short:
        picture, long = _middle(picture, _LONGEST_SHAPE * short), _LONGEST_SHAPE * short
    length = int(edge * long / short)
    shape = (length, edge) if picture.width <= picture.height else (edge, length)
    pixels = stretch(picture, shape, exact=exact)
    top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
    return pixels[:, top : top + size, left : left + size]


def _middle(picture: Picture, length: int) -> Image.Image:
    pillow = to_pillow(picture)
    across, down = min(pillow.width, length), min(pillow.height, length)
    left, top = (pillow.width - across) // 2, (pillow.height - down) // 2
    return pillow.crop((left, top, left + across, top + down))
