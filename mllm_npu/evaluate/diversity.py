"""Measure how much pictures of one class differ from each other.

Shape letters: N pictures, C channels, H W pixels, Z classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from mllm_npu.errors import DataError
from mllm_npu.processing.image_transform import to_tensor


def spread_within_classes(pictures: Sequence[Image.Image], classes: Sequence[int]) -> float:
    """Mean over classes and pixels of the standard deviation within a class, pixels in [-1, 1].

    Args:
        pictures: RGB of one size.
        classes: of each picture; every class at least twice.

    Raises:
        DataError: if a class has only one picture.
    """
    pixels_N3HW = to_unit_pixels(pictures)
    classes_N = torch.tensor(list(classes))
    spreads: list[Tensor] = []
    for number in sorted(set(classes)):
        members_M3HW = pixels_N3HW[classes_N == number]
        if len(members_M3HW) < 2:  # noqa: PLR2004 one picture has no spread
            raise DataError(
                f"The spread of class {number} was asked for, it has one picture. Give at least 2."
            )
        spreads.append(members_M3HW.std(dim=0).mean())
    return float(torch.stack(spreads).mean())


def mean_squared_error(drawn: Sequence[Image.Image], real: Sequence[Image.Image]) -> list[float]:
    """Mean squared difference of each pair of pictures, pixels in [-1, 1]."""
    difference_N3HW = to_unit_pixels(drawn) - to_unit_pixels(real)
    return difference_N3HW.square().mean(dim=(1, 2, 3)).tolist()


def to_unit_pixels(pictures: Sequence[Image.Image]) -> Tensor:
    """Pixels from -1 (black) to 1 (white), float32 [N, 3, H, W]."""
    return torch.stack([to_tensor(picture) for picture in pictures]).float() / 127.5 - 1
