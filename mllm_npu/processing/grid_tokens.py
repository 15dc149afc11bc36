"""Lay the tokens of a picture's tiles out as one grid without borders, shrunk, its rows ended.

Everything follows from the size of a picture, so it is computed on the host and the model gathers.

Shape letters: N tokens of a picture, X tokens that one of them is made of, Y X rows and columns of
the joined grid.

Source: LLaVA-NeXT and LLaVA-OneVision as transformers computes them (``pack_image_features``).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from mllm_npu.processing.tiling import TokenSources

_NEWLINE = 0
_FIRST = 1
"""Number of the first token of the first tile; before it comes the newline."""
_SHRINKS_ABOVE = 1.1
"""A grid that is larger than allowed by less than this is left as it is."""


def unpadded_size(
    width: int, height: int, *, columns: int, rows: int, side: int
) -> tuple[int, int, int, int]:
    """The part of a joined grid that the picture covers.

    Args:
        width: pixels of the picture across.
        height: pixels of the picture down.
        columns: tiles across.
        rows: tiles down.
        side: tokens of a tile's edge.

    Returns:
        First column, first row, number of columns, number of rows, in tokens.
    """
    across, down = columns * side, rows * side
    if width / height > across / down:
        covered = int(round(height * (across / width), 7))
        border = (down - covered) // 2
        return 0, border, across, down - 2 * border
    covered = int(round(width * (down / height), 7))
    border = (across - covered) // 2
    return border, 0, across - 2 * border, down


def shrunk_size(across: int, down: int, *, side: int, max_tiles: int | None) -> tuple[int, int]:
    """Columns and rows of a grid after it is shrunk to what so many tiles have, in tokens."""
    if max_tiles is None:
        return across, down
    ratio = math.sqrt(down * across / (max_tiles * side**2))
    if ratio <= _SHRINKS_ABOVE:
        return across, down
    return max(int(across // ratio), 1), max(int(down // ratio), 1)


def count_joined(
    width: int, height: int, *, columns: int, rows: int, side: int, max_tiles: int | None
) -> int:
    """Tokens of a picture: the whole one's, and the grid's with one more at the end of each row."""
    *_, across, down = unpadded_size(width, height, columns=columns, rows=rows, side=side)
    across, down = shrunk_size(across, down, side=side, max_tiles=max_tiles)
    return side**2 + down * (across + 1)


@lru_cache(maxsize=1024)
def join_grid(
    width: int, height: int, *, columns: int, rows: int, side: int, max_tiles: int | None
) -> TokenSources:
    """Where the tokens of a picture come from whose tiles are a grid and then the whole picture.

    Args:
        width: pixels of the picture across.
        height: pixels of the picture down.
        columns: tiles across.
        rows: tiles down.
        side: tokens of a tile's edge.
        max_tiles: tiles whose tokens are kept at most, the grid is shrunk to that; None: all.
    """
    left, top, across, down = unpadded_size(width, height, columns=columns, rows=rows, side=side)
    grid_YX = _joined_numbers(columns, rows, side)[top : top + down, left : left + across]
    whole_N = _FIRST + columns * rows * side**2 + np.arange(side**2)
    new_across, new_down = shrunk_size(across, down, side=side, max_tiles=max_tiles)
    if (new_across, new_down) == (across, down):
        ended = np.pad(grid_YX, ((0, 0), (0, 1)), constant_values=_NEWLINE)
        return TokenSources(sources=torch.from_numpy(np.r_[whole_N, ended.ravel()][:, None]))
    sources, weights = _shrink(grid_YX, new_across, new_down)
    alone = np.zeros((len(whole_N), 4), dtype=np.int64)
    alone[:, 0] = whole_N
    return TokenSources(
        sources=torch.from_numpy(np.concatenate([alone, sources])),
        weights=torch.from_numpy(np.concatenate([_ONE.repeat(len(alone), 0), weights])),
    )


@lru_cache(maxsize=8)
def single_tile(side: int) -> TokenSources:
    """The tokens of a picture of one tile, and one newline at their end."""
    numbers = np.r_[_FIRST + np.arange(side**2), _NEWLINE]
    return TokenSources(sources=torch.from_numpy(numbers[:, None]))


_ONE = np.array([[1.0, 0.0, 0.0, 0.0]], dtype=np.float32)
"""Weights of a token that is one other as it is."""


def _joined_numbers(columns: int, rows: int, side: int) -> NDArray[np.int64]:
    """Numbers of the grid's tokens where they stand in the picture, int64 [Y, X]."""
    numbers = _FIRST + np.arange(rows * columns * side**2, dtype=np.int64)
    tiles = numbers.reshape(rows, columns, side, side).transpose(0, 2, 1, 3)
    return tiles.reshape(rows * side, columns * side)


def _shrink(
    grid_YX: NDArray[np.int64], across: int, down: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Bilinear interpolation of a grid, a newline behind each row, [N, 4] and [N, 4]."""
    top, bottom, share_down = _neighbours(grid_YX.shape[0], down)
    left, right, share_across = _neighbours(grid_YX.shape[1], across)
    pairs = [(row, column) for row in (top, bottom) for column in (left, right)]
    sources = np.stack([grid_YX[row[:, None], column] for row, column in pairs], axis=-1)
    shares_down, shares_across = (
        (1 - share, share) for share in (share_down[:, None], share_across[None])
    )
    weights = np.stack([a * b for a in shares_down for b in shares_across], axis=-1)
    ended = np.pad(sources, ((0, 0), (0, 1), (0, 0)), constant_values=_NEWLINE)
    weighed = np.concatenate([weights, np.broadcast_to(_ONE, (down, 1, 4))], axis=1)
    return ended.reshape(-1, 4), weighed.reshape(-1, 4).astype(np.float32)


def _neighbours(
    count: int, wanted: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """The two old places around each new one, and how near the second is, as torch counts."""
    scale = np.float32(count) / np.float32(wanted)
    places = (np.arange(wanted, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    places = np.maximum(places, np.float32(0))
    first = places.astype(np.int64)
    return first, np.minimum(first + 1, count - 1), places - first.astype(np.float32)
