"""Tile buffer: one piece of memory for the tiles of a pack, given out end to end.

Joining tiles afterwards would copy every pixel once more.

Shape letters: I tiles, S pixels of a tile's edge.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class TileBuffer:
    """Memory for tiles in the order of pictures, rows of RGB triples.

    Args:
        capacity: tiles it holds; more are given memory of their own.
        tile_size: S.

    Attributes:
        used: tiles given out so far; set it back to take the last ones again.
    """

    def __init__(self, *, capacity: int, tile_size: int) -> None:
        self.tile_size = tile_size
        self.used = 0
        self._tiles_ISS3 = torch.empty(capacity, tile_size, tile_size, 3, dtype=torch.uint8)

    def take(self, count: int) -> Tensor:
        """The next tiles, their pixels undefined, uint8 [count, 3, S, S]."""
        end = self.used + count
        if end > len(self._tiles_ISS3):
            size = self.tile_size
            return torch.empty(count, size, size, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
        tiles = self._tiles_ISS3[self.used : end]
        self.used = end
        return tiles.permute(0, 3, 1, 2)

    def join(self, blocks: Sequence[Tensor]) -> Tensor:
        """Blocks end to end, uint8 [I, 3, S, S]; no copy where they lie so in this buffer."""
        begin = self._place(blocks[0])
        end = begin
        for block in blocks:
            if begin < 0 or self._place(block) != end:
                return join_tiles(blocks)
            end += len(block)
        return self._tiles_ISS3[begin:end].permute(0, 3, 1, 2)

    def _place(self, block: Tensor) -> int:
        """Number of a block's first tile in this buffer; -1 where it lies elsewhere."""
        distance = block.data_ptr() - self._tiles_ISS3.data_ptr()
        place, rest = divmod(distance, 3 * self.tile_size**2)
        return place if not rest and 0 <= place <= self.used - len(block) else -1


def join_tiles(blocks: Sequence[Tensor]) -> Tensor:
    """Tiles end to end, uint8 [I, 3, S, S], in the memory order of pictures.

    ``torch.cat`` on that order itself is five times slower.
    """
    return torch.cat([block.permute(0, 2, 3, 1) for block in blocks]).permute(0, 3, 1, 2)
