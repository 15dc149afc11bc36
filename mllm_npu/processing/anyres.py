"""Cut a picture of any size into tiles of one size: the best grid, then the whole picture.

Every tile stands by itself. `mllm_npu.processing.joined_tiles` joins them to one grid.

Shape letters: I tiles, S pixels of a tile's edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from mllm_npu.errors import ConfigError
from mllm_npu.processing.image_transform import stretch
from mllm_npu.processing.raster import Picture
from mllm_npu.processing.tile_buffer import TileBuffer
from mllm_npu.processing.tiling import Tiling

Grid = tuple[int, int]
"""Columns and rows of tiles."""


class AnyResolution(Tiling):
    """Chooses a grid for a picture and cuts it.

    Args:
        grids: allowed grids as "<columns>x<rows>", the earlier one wins a tie.
        tile_size: S, what the vision encoder sees.
        repeat_single_tile: whether a 1x1 grid gives the picture twice, as tile and as whole;
            released checkpoints were trained so. False saves half the tokens of a small picture.
        exact: whether pixels are Pillow's to the bit; False is faster, see ``stretch``.

    Raises:
        ConfigError: No grid, one that cannot be read, or a tile without pixels.

    Source: SEED-X (arXiv 2404.14396); the first rule is LLaVA-NeXT's.
    """

    def __init__(
        self,
        *,
        grids: Sequence[str],
        tile_size: int,
        repeat_single_tile: bool = True,
        exact: bool = True,
    ) -> None:
        if tile_size < 1:
            raise ConfigError(f"tile_size={tile_size} was asked for. Give at least one pixel.")
        if not grids:
            raise ConfigError("No grid was given. Give at least one, such as grids=[1x1].")
        self.grids = tuple(parse_grid(grid) for grid in grids)
        self.tile_size = tile_size
        self.repeat_single_tile = repeat_single_tile
        self.exact = exact

    def choose(self, width: int, height: int) -> Grid:
        """Grid for a picture of that many pixels, as (columns, rows).

        The grid that keeps most of the picture's pixels is taken, unless the one nearest in
        shape is smaller.
        """
        return _choose(self.grids, self.tile_size, width, height)

    def num_tiles(self, width: int, height: int, *, alone: bool = True) -> int:
        """Tiles of a picture of that many pixels, the whole picture among them."""
        columns, rows = self.choose(width, height)
        return 1 if self._is_single((columns, rows)) else columns * rows + 1

    @property
    def max_tiles(self) -> int:
        """Tiles of the largest grid, the whole picture among them."""
        return max(1 if self._is_single(grid) else grid[0] * grid[1] + 1 for grid in self.grids)

    def split(
        self, picture: Picture, *, alone: bool = True, buffer: TileBuffer | None = None
    ) -> tuple[Tensor, Tensor]:
        """Cut a picture, stretching it onto the grid; see `Tiling.split`."""
        columns, rows = self.choose(picture.width, picture.height)
        size = self.tile_size
        count = 1 if self._is_single((columns, rows)) else columns * rows + 1
        tiles = (buffer or TileBuffer(capacity=count, tile_size=size)).take(count)
        self.whole(picture, out=tiles[-1:])
        if count > 1:
            stretched = tiles[-1]
            if (columns, rows) != (1, 1):
                stretched = stretch(picture, (rows * size, columns * size), exact=self.exact)
            triples = stretched.permute(1, 2, 0).contiguous()
            grid = tiles[:-1].permute(0, 2, 3, 1).view(rows, columns, size, size, 3)
            grid.copy_(triples.view(rows, size, columns, size, 3).transpose(1, 2))
        return tiles, tile_centres(columns, rows) if count > 1 else tile_centres(0, 0)

    def whole(self, picture: Picture, *, out: Tensor | None = None) -> Tensor:
        """The whole picture as one tile, stretched, uint8 [3, S, S]; see `Tiling.whole`."""
        return stretch(picture, self.tile_size, exact=self.exact, out=out)

    def describe(self) -> tuple[object, ...]:
        """Grids, size of a tile, and whether a small picture has two."""
        return self.grids, self.tile_size, self.repeat_single_tile

    def _is_single(self, grid: Grid) -> bool:
        return grid == (1, 1) and not self.repeat_single_tile


@lru_cache(maxsize=256)
def tile_centres(columns: int, rows: int) -> Tensor:
    """Centre of each tile of a grid, then of the whole picture, float32 [I, 2]."""
    grid = [
        ((column + 0.5) / columns, (row + 0.5) / rows)
        for row in range(rows)
        for column in range(columns)
    ]
    return torch.tensor([*grid, (0.5, 0.5)])


@lru_cache(maxsize=65536)
def sharpest_grid(grids: tuple[Grid, ...], tile_size: int, width: int, height: int) -> Grid:
    """The grid that keeps most of a picture's pixels; of equals the smallest, then the first."""
    return min(grids, key=lambda grid: _loss_of_detail(grid, tile_size, width, height))


@lru_cache(maxsize=65536)
def _choose(grids: tuple[Grid, ...], tile_size: int, width: int, height: int) -> Grid:
    """See ``AnyResolution.choose``; kept, because pictures of a data set share few sizes."""
    size = (width, height)
    sharp = sharpest_grid(grids, tile_size, width, height)
    shaped = min(grids, key=lambda grid: _distortion(grid, tile_size, *size))
    return shaped if sharp[0] * sharp[1] > shaped[0] * shaped[1] else sharp


def _loss_of_detail(grid: Grid, tile_size: int, width: int, height: int) -> tuple[int, int]:
    across, down = grid[0] * tile_size, grid[1] * tile_size
    scale = min(across / width, down / height)
    kept = min(int(width * scale) * int(height * scale), width * height)
    return -kept, across * down - kept


def _distortion(grid: Grid, tile_size: int, width: int, height: int) -> tuple[float, float]:
    aspect, wanted = grid[1] / grid[0], height / width
    area, wanted_area = grid[0] * grid[1] * tile_size**2, width * height
    return (
        max(aspect / wanted, wanted / aspect),
        max(area / wanted_area, wanted_area / area),
    )


def parse_grid(grid: str) -> Grid:
    """Columns and rows of ``<columns>x<rows>``.

    Raises:
        ConfigError: it says something else.
    """
    columns, cross, rows = grid.partition("x")
    if not (cross and columns.isdecimal() and rows.isdecimal() and int(columns) and int(rows)):
        raise ConfigError(f"The grid {grid!r} was asked for. Write <columns>x<rows>, such as 2x3.")
    return int(columns), int(rows)
