"""What every way of cutting pictures into tiles answers, and which tokens a picture has then.

Shape letters: I tiles, S pixels of a tile's edge, N tokens of a picture, X tokens that one of them
is made of.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from mllm_npu.processing.raster import Picture
from mllm_npu.processing.tile_buffer import TileBuffer


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenSources:
    """Each token of a picture as a weighted sum of tokens of its tiles.

    Args:
        sources: 0 is the learnt newline, 1 + i the i-th token of the tiles one behind the other,
            int64 [N, X].
        weights: float32 [N, X]; None where each is the one token it comes from (X is 1).
    """

    sources: Tensor
    weights: Tensor | None = None


class Tiling(ABC):
    """Cuts a picture into tiles of one size; the whole picture is the last of them.

    Attributes:
        tile_size: S, what the vision encoder sees.
        exact: whether pixels are Pillow's to the bit; False is faster, see ``stretch``.
        joins: whether the tokens of a picture's tiles are joined to one grid, as ``token_sources``
            says. Otherwise every tile stands by itself.
        picks_by_company: whether a picture is cut in another way beside other pictures.
    """

    tile_size: int
    exact: bool = True
    joins: bool = False
    picks_by_company: bool = False

    @property
    @abstractmethod
    def max_tiles(self) -> int:
        """Tiles of the picture that has most of them."""

    @abstractmethod
    def num_tiles(self, width: int, height: int, *, alone: bool = True) -> int:
        """Tiles of a picture of that many pixels.

        Args:
            width: pixels across.
            height: pixels down.
            alone: whether no other picture is read beside it.
        """

    def num_tokens(self, width: int, height: int, *, per_tile: int, alone: bool = True) -> int:
        """Tokens of a picture of that many pixels.

        Args:
            width: pixels across.
            height: pixels down.
            per_tile: tokens of a tile, with what stands around them.
            alone: whether no other picture is read beside it.
        """
        return self.num_tiles(width, height, alone=alone) * per_tile

    def token_sources(
        self, width: int, height: int, *, per_tile: int, alone: bool = True
    ) -> TokenSources:
        """What the tokens of a picture are made of; only where ``joins``.

        Args:
            width: pixels across.
            height: pixels down.
            per_tile: tokens of a tile, a square.
            alone: whether no other picture is read beside it.
        """
        raise NotImplementedError(f"The tiles of a {type(self).__name__} are not joined.")

    @abstractmethod
    def split(
        self, picture: Picture, *, alone: bool = True, buffer: TileBuffer | None = None
    ) -> tuple[Tensor, Tensor]:
        """Cut a picture.

        Args:
            picture: of any size.
            alone: whether no other picture is read beside it.
            buffer: gives the memory of the tiles.

        Returns:
            Tiles row by row, then the whole picture, uint8 [I, 3, S, S]; and the centre (x, y) of
            each in the picture, 0..1, float32 [I, 2]. Tiles lie in memory as rows of RGB triples,
            as pictures do.
        """

    @abstractmethod
    def whole(self, picture: Picture, *, out: Tensor | None = None) -> Tensor:
        """The whole picture as one tile, uint8 [3, S, S].

        Args:
            picture: of any size.
            out: takes the tile, uint8 [1, 3, S, S].
        """

    @abstractmethod
    def describe(self) -> tuple[object, ...]:
        """Everything that the number of tiles and tokens follows from."""
