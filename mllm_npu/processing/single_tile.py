"""Cut every picture into one tile: its middle, or all of it on a square, or all of it stretched.

Shape letters: S pixels of a tile's edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from mllm_npu.errors import ConfigError
from mllm_npu.processing.image_transform import stretch
from mllm_npu.processing.picture_fit import crop_centre, pad_to_square
from mllm_npu.processing.raster import Picture
from mllm_npu.processing.tile_buffer import TileBuffer
from mllm_npu.processing.tiling import Tiling

Fit = Literal["crop", "pad", "stretch"]
_FITS = ("crop", "pad", "stretch")
_CENTRE = torch.tensor([[0.5, 0.5]])


class SingleTile(Tiling):
    """One tile per picture.

    Args:
        tile_size: S.
        fit: "crop" stretches the shorter edge to S and keeps the middle, as CLIP does; "pad" puts
            the picture on a square of ``background`` first, as LLaVA-1.5 was trained; "stretch"
            changes its shape.
        shortest_edge: pixels of the shorter edge before the middle is cut out; None means S.
        background: red, green and blue of the square, 0..255.
        exact: whether pixels are Pillow's to the bit; False is faster, see ``stretch``.

    Raises:
        ConfigError: another fit, a shorter edge below S, or no colour.

    Source: CLIP (arXiv:2103.00020); LLaVA-1.5 (arXiv:2310.03744).
    """

    def __init__(
        self,
        *,
        tile_size: int,
        fit: Fit = "crop",
        shortest_edge: int | None = None,
        background: Sequence[int] = (122, 116, 104),
        exact: bool = True,
    ) -> None:
        if fit not in _FITS:
            raise ConfigError(f"fit={fit!r} was asked for. Choose one of {', '.join(_FITS)}.")
        if tile_size < 1 or (shortest_edge is not None and shortest_edge < tile_size):
            raise ConfigError(
                f"tile_size={tile_size} and shortest_edge={shortest_edge} were asked for. Give at "
                "least one pixel, and no shorter edge below the tile's."
            )
        require_colour(background)
        self.tile_size = tile_size
        self.fit = fit
        self.shortest_edge = shortest_edge
        self.background = tuple(background)
        self.exact = exact

    @property
    def max_tiles(self) -> int:
        """One."""
        return 1

    def num_tiles(self, width: int, height: int, *, alone: bool = True) -> int:
        """One."""
        return 1

    def split(
        self, picture: Picture, *, alone: bool = True, buffer: TileBuffer | None = None
    ) -> tuple[Tensor, Tensor]:
        """The picture as its one tile; see `Tiling.split`."""
        tiles = (buffer or TileBuffer(capacity=1, tile_size=self.tile_size)).take(1)
        self.whole(picture, out=tiles)
        return tiles, _CENTRE

    def whole(self, picture: Picture, *, out: Tensor | None = None) -> Tensor:
        """The picture as its one tile, uint8 [3, S, S]; see `Tiling.whole`."""
        if self.fit == "stretch":
            return stretch(picture, self.tile_size, exact=self.exact, out=out)
        square = pad_to_square(picture, self.background) if self.fit == "pad" else picture
        pixels = crop_centre(
            square, self.tile_size, shortest_edge=self.shortest_edge, exact=self.exact
        )
        return pixels if out is None else out.copy_(pixels)[0]

    def describe(self) -> tuple[object, ...]:
        """The rule of pixels; the number of tokens is always the same."""
        return "single", self.tile_size, self.fit, self.shortest_edge, self.background


def require_colour(background: Sequence[int]) -> None:
    """Refuse what is no colour.

    Raises:
        ConfigError: not three whole numbers of 0..255.
    """
    if len(background) != 3 or not all(0 <= level <= 255 for level in background):
        raise ConfigError(
            f"background={list(background)} was asked for. Give red, green and blue, each 0..255."
        )
