"""Pictures as an image decoder computes with them, and back.

Shape letters: G pictures, S pixels of an edge.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mllm_npu.errors import RequestError


def to_pixels(pictures_G3SS: Tensor, size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Levels 0..255 to -1..1, uint8 [G, 3, S, S] -> float [G, 3, S, S].

    Args:
        pictures_G3SS: of the decoder's size.
        size: S.
        dtype: of the result.

    Raises:
        RequestError: pictures of another size.
    """
    if pictures_G3SS.shape[1:] != (3, size, size):
        raise RequestError(
            f"The image decoder learns pictures [G, 3, {size}, {size}], got "
            f"{list(pictures_G3SS.shape)}; set the processor's picture_size to {size}."
        )
    return pictures_G3SS.to(dtype) * (1 / 127.5) - 1


def to_levels(pixels_GCSS: Tensor) -> Tensor:
    """-1..1 to levels 0..255, rounded, float [G, C, S, S] -> uint8 [G, C, S, S]."""
    return (pixels_GCSS.float() * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)
