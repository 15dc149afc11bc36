"""Fixed sine-cosine positions of a square grid.

Shape letters: K places of the grid, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mllm_npu.errors import ConfigError


def grid_side(num_tokens: int, *, part: str) -> int:
    """Edge of the square grid of ``num_tokens``.

    Raises:
        ConfigError: ``num_tokens`` is no square.
    """
    side = round(num_tokens**0.5)
    if num_tokens < 1 or side * side != num_tokens:
        raise ConfigError(
            f"{part} needs a square number of tokens (1, 4, 9, 16, ...), got {num_tokens}."
        )
    return side


def sincos_grid(side: int, width: int, *, longest_wave: float = 10000.0) -> Tensor:
    """Positions of a grid, row by row, float32 [side * side, width].

    The first half of the width holds the column, the second half the row; each half holds sines,
    then cosines.

    Args:
        side: edge of the grid.
        width: D, a multiple of 4.
        longest_wave: ratio of the longest to the shortest wave.

    Raises:
        ConfigError: the width is no multiple of 4.

    Source: the position embedding of MAE and of Qwen-VL's resampler.
    """
    if width % 4:
        raise ConfigError(f"Grid positions need a width that is a multiple of 4, got {width}.")
    rates = longest_wave ** (-torch.arange(width // 4) / (width // 4))
    angles = torch.arange(side)[:, None] * rates
    waves = torch.cat([angles.sin(), angles.cos()], 1)
    return torch.cat([waves.repeat(side, 1), waves.repeat_interleave(side, 0)], 1)
