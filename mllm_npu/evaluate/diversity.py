"""Measure how much pictures of one class differ from each other.

Shape letters: N pictures, H W pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from mllm_npu.processing.image_transform import to_tensor


def spread_within_classes(pictures: Sequence[Image.Image], classes: Sequence[int]) -> float | None:
    """Mean over classes and pixels of the standard deviation within a class, pixels in [-1, 1].

    Args:
        pictures: RGB of one size.
        classes: of each picture; a class with one picture has no spread and is left out.

    Returns:
        The spread, or None where no class has two pictures.
    """
    repeated = [number for number, count in sorted(Counter(classes).items()) if count > 1]
    if not repeated:
        return None
    pixels_N3HW = to_unit_pixels(pictures)
    classes_N = torch.tensor(list(classes))
    spreads = [pixels_N3HW[classes_N == number].std(dim=0).mean() for number in repeated]
    return float(torch.stack(spreads).mean())


def mean_squared_error(drawn: Sequence[Image.Image], real: Sequence[Image.Image]) -> list[float]:
    """Mean squared difference of each pair of pictures, pixels in [-1, 1]."""
    difference_N3HW = to_unit_pixels(drawn) - to_unit_pixels(real)
    return difference_N3HW.square().mean(dim=(1, 2, 3)).tolist()


def to_unit_pixels(pictures: Sequence[Image.Image]) -> Tensor:
    """Pixels from -1 (black) to 1 (white), float32 [N, 3, H, W]."""
    return torch.stack([to_tensor(picture) for picture in pictures]).float() / 127.5 - 1
