"""Cut a picture of any size into tiles whose tokens are joined to one grid, as LLaVA-NeXT does.

Shape letters: I tiles, S pixels of a tile's edge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mllm_npu.errors import ConfigError
from mllm_npu.processing.anyres import Grid, parse_grid, sharpest_grid, tile_centres
from mllm_npu.processing.grid_tokens import count_joined, join_grid, single_tile
from mllm_npu.processing.image_transform import stretch
from mllm_npu.processing.picture_fit import fit_inside, pad_to_square
from mllm_npu.processing.raster import Picture
from mllm_npu.processing.single_tile import require_colour
from mllm_npu.processing.tile_buffer import TileBuffer
from mllm_npu.processing.tiling import Tiling, TokenSources

_CENTRE = torch.tensor([[0.5, 0.5]])


class JoinedTiles(Tiling):
    """The picture keeps its shape inside the best grid, and is there once more as a whole.

    Its tokens are those of the whole picture and then those of the grid row by row, without the
    borders beside the picture, each row ended by a learnt newline.

    Args:
        grids: allowed grids as "<columns>x<rows>", the earlier one wins a tie.
        tile_size: S, what the vision encoder sees.
        max_grid_tiles: tiles whose tokens are kept at most; a larger grid of tokens is shrunk to
            that (the 9 of ``anyres_max_9``). None keeps all.
        one_tile_in_company: whether each of several pictures of a conversation is one tile, on a
            square, and one newline, as in LLaVA-OneVision.
        background: red, green and blue of that square, 0..255.
        exact: whether pixels are Pillow's to the bit; False is faster, see ``stretch``.

    Raises:
        ConfigError: no grid, one that cannot be read, or sizes below one.

    Source: LLaVA-NeXT (Liu et al. 2024); LLaVA-OneVision (arXiv:2408.03326).
    """

    joins = True

    def __init__(
        self,
        *,
        grids: Sequence[str],
        tile_size: int,
        max_grid_tiles: int | None = None,
        one_tile_in_company: bool = False,
        background: Sequence[int] = (127, 127, 127),
        exact: bool = True,
    ) -> None:
        if tile_size < 1 or (max_grid_tiles is not None and max_grid_tiles < 1):
            raise ConfigError(
                f"tile_size={tile_size} and max_grid_tiles={max_grid_tiles} were asked for. Give "
                "numbers from 1 on, or max_grid_tiles=null."
            )
        if not grids:
            raise ConfigError("No grid was given. Give at least one, such as grids=[2x2].")
        require_colour(background)
        self.grids = tuple(parse_grid(grid) for grid in grids)
        self.tile_size = tile_size
        self.max_grid_tiles = max_grid_tiles
        self.picks_by_company = one_tile_in_company
        self.background = tuple(background)
        self.exact = exact

    @property
    def max_tiles(self) -> int:
        """Tiles of the largest grid, the whole picture among them."""
        return max(columns * rows for columns, rows in self.grids) + 1

    def choose(self, width: int, height: int) -> Grid:
        """The grid that keeps most of a picture's pixels, as (columns, rows)."""
        return sharpest_grid(self.grids, self.tile_size, width, height)

    def num_tiles(self, width: int, height: int, *, alone: bool = True) -> int:
        """Tiles of a picture of that many pixels, the whole picture among them."""
        columns, rows = self.choose(width, height)
        return 1 if self._is_single(alone) else columns * rows + 1

    def num_tokens(self, width: int, height: int, *, per_tile: int, alone: bool = True) -> int:
        """Tokens of a picture, newlines among them; see `Tiling.num_tokens`."""
        if self._is_single(alone):
            return per_tile + 1
        columns, rows = self.choose(width, height)
        return count_joined(
            width,
            height,
            columns=columns,
            rows=rows,
            side=math.isqrt(per_tile),
            max_tiles=self.max_grid_tiles,
        )

    def token_sources(
        self, width: int, height: int, *, per_tile: int, alone: bool = True
    ) -> TokenSources:
        """What the tokens of a picture are made of; see `Tiling.token_sources`."""
        if self._is_single(alone):
            return single_tile(math.isqrt(per_tile))
        columns, rows = self.choose(width, height)
        return join_grid(
            width,
            height,
            columns=columns,
            rows=rows,
            side=math.isqrt(per_tile),
            max_tiles=self.max_grid_tiles,
        )

    def split(
        self, picture: Picture, *, alone: bool = True, buffer: TileBuffer | None = None
    ) -> tuple[Tensor, Tensor]:
        """Cut a picture, black borders beside it; see `Tiling.split`."""
        count, size = self.num_tiles(picture.width, picture.height, alone=alone), self.tile_size
        tiles = (buffer or TileBuffer(capacity=count, tile_size=size)).take(count)
        if count == 1:
            stretch(pad_to_square(picture, self.background), size, exact=self.exact, out=tiles)
            return tiles, _CENTRE
        columns, rows = self.choose(picture.width, picture.height)
        self.whole(picture, out=tiles[-1:])
        fitted = fit_inside(picture, (rows * size, columns * size), exact=self.exact)
        triples = fitted.permute(1, 2, 0).contiguous()
        grid = tiles[:-1].permute(0, 2, 3, 1).view(rows, columns, size, size, 3)
        grid.copy_(triples.view(rows, size, columns, size, 3).transpose(1, 2))
        return tiles, tile_centres(columns, rows)

    def whole(self, picture: Picture, *, out: Tensor | None = None) -> Tensor:
        """The whole picture as one tile, stretched, uint8 [3, S, S]; see `Tiling.whole`."""
        return stretch(picture, self.tile_size, exact=self.exact, out=out)

    def describe(self) -> tuple[object, ...]:
        """Everything that the number of tiles and tokens follows from."""
        kept = (self.max_grid_tiles, self.picks_by_company)
        return "joined", self.grids, self.tile_size, *kept

    def _is_single(self, alone: bool) -> bool:
        return self.picks_by_company and not alone
