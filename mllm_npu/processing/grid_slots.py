"""Say for a whole sample which of its tokens are made of which tokens of its joined tiles.

Shape letters: N tokens of joined tiles, X tokens that one of them is made of.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mllm_npu.processing.conversation import ReadImage
from mllm_npu.processing.layout import TokenLayout
from mllm_npu.processing.tiling import Tiling, TokenSources

Grids = tuple[Tensor | None, Tensor | None, Tensor | None]
"""Slots int64 [N], sources int64 [N, X] and weights float32 [N, X], as `Sample` has them."""


def place_grids(layout: TokenLayout, tiling: Tiling, per_tile: int) -> Grids:
    """The grid fields of a sample; none of them where no tiles are joined.

    Args:
        layout: of the sample.
        tiling: cuts its pictures.
        per_tile: tokens of a tile.
    """
    if not layout.grid_starts:
        return None, None, None
    pictures = [part.picture for part in layout.pictures if isinstance(part, ReadImage)]
    alone = len(pictures) == 1
    found = [
        tiling.token_sources(picture.width, picture.height, per_tile=per_tile, alone=alone)
        for picture in pictures
    ]
    slots = [
        torch.arange(start, start + len(grid.sources))
        for start, grid in zip(layout.grid_starts, found, strict=True)
    ]
    counts = [
        tiling.num_tiles(picture.width, picture.height, alone=alone) * per_tile
        for picture in pictures
    ]
    sources, weights = join_sources(found, counts)
    return torch.cat(slots), sources, weights


def join_sources(
    grids: Sequence[TokenSources], counts: Sequence[int]
) -> tuple[Tensor, Tensor | None]:
    """Sources and weights of several pictures whose tiles lie one behind the other.

    Args:
        grids: of the pictures.
        counts: tokens of each one's tiles.
    """
    most = max(grid.sources.shape[1] for grid in grids)
    sources: list[Tensor] = []
    weights: list[Tensor] = []
    first = 0
    for grid, count in zip(grids, counts, strict=True):
        lacking = most - grid.sources.shape[1]
        # A newline stays one; every other token moves behind those of the tiles before.
        sources.append(F.pad(grid.sources + first * (grid.sources > 0), (0, lacking)))
        if most > 1:
            weights.append(_weigh(grid, most))
        first += count
    return torch.cat(sources), torch.cat(weights) if weights else None


def _weigh(grid: TokenSources, width: int) -> Tensor:
    """Weights of a grid, those of a token that is one other among them, float32 [N, X]."""
    if grid.weights is not None:
        return grid.weights
    return F.pad(torch.ones(len(grid.sources), 1), (0, width - 1))
