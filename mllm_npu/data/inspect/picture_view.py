"""Picture view: where the tiles of a sample lie on its pictures.

Shape letters: I tiles, S pixels of a tile's edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from mllm_npu.batch import Sample
from mllm_npu.errors import DataError
from mllm_npu.processing.conversation import Conversation, DrawnImage, ReadImage
from mllm_npu.processing.image_transform import to_picture
from mllm_npu.processing.tiling import Tiling


@dataclass(frozen=True, slots=True, kw_only=True)
class TileView:
    """A tile on its picture, in shares of the picture's width and height.

    Args:
        number: its number among the tiles of the sample.
        left: 0..1.
        top: 0..1.
        width: 0..1.
        height: 0..1.
        is_whole: whether it is the whole picture.
    """

    number: int
    left: float
    top: float
    width: float
    height: float
    is_whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureView:
    """A picture of a sample.

    Args:
        width: pixels across, before it was stretched onto its tiles.
        height: pixels down.
        is_drawn: whether the model draws it; else it is read.
        columns: of the grid.
        rows: of the grid.
        tiles: row by row, the whole picture last.
    """

    width: int
    height: int
    is_drawn: bool
    columns: int
    rows: int
    tiles: tuple[TileView, ...]

    @property
    def summary(self) -> str:
        """What it is and what became of it, in a line."""
        if self.is_drawn:
            return f"drawn, {self.width}x{self.height}, 1 tile"
        if len(self.tiles) == 1:
            return f"read, {self.width}x{self.height}, 1 tile"
        grid = f"{self.columns}x{self.rows} grid and the whole"
        return f"read, {self.width}x{self.height}, {grid}, {len(self.tiles)} tiles"

    def assemble(self, tiles: Tensor, *, longest: int) -> Image.Image:
        """The picture as its tiles show it, in its own proportions.

        Args:
            tiles: of the sample, uint8 [I, 3, S, S].
            longest: most pixels of its longer edge; it is never larger than its tiles are.
        """
        size = int(tiles.shape[-1])
        if len(self.tiles) == 1:
            canvas = tiles[self.tiles[0].number]
        else:
            grid = tiles[[tile.number for tile in self.tiles if not tile.is_whole]]
            across = grid.view(self.rows, self.columns, 3, size, size).permute(2, 0, 3, 1, 4)
            canvas = across.reshape(3, self.rows * size, self.columns * size)
        picture = to_picture(canvas)
        edge = max(self.width, self.height)
        scale = min(1.0, longest / edge, max(picture.size) / edge)
        wanted = (max(1, round(self.width * scale)), max(1, round(self.height * scale)))
        return picture if picture.size == wanted else picture.resize(wanted, Image.Resampling.BOX)


def view_pictures(
    conversation: Conversation, sample: Sample, any_resolution: Tiling
) -> tuple[PictureView, ...]:
    """The pictures of a conversation with the tiles that its sample cut them into.

    Args:
        conversation: what the sample was encoded from.
        sample: its encoding.
        any_resolution: what cut it.

    Raises:
        DataError: if the sample does not belong to the conversation.
    """
    parts = [part for turn in conversation.turns for part in turn.parts]
    pictures = [part for part in parts if isinstance(part, ReadImage | DrawnImage)]
    alone = sum(isinstance(part, ReadImage) for part in pictures) == 1
    counts = [_count_tiles(part, any_resolution, alone=alone) for part in pictures]
    if sum(counts) != len(sample.tiles):
        raise DataError(
            f"A sample of {len(sample.tiles)} tiles was given with a conversation of "
            f"{sum(counts)}. Give the conversation the sample was encoded from."
        )
    views, first = [], 0
    for part, count in zip(pictures, counts, strict=True):
        views.append(_view_picture(part, first, sample.tile_positions[first : first + count]))
        first += count
    return tuple(views)


def _count_tiles(part: ReadImage | DrawnImage, any_resolution: Tiling, *, alone: bool) -> int:
    if isinstance(part, DrawnImage):
        return 1
    return any_resolution.num_tiles(part.picture.width, part.picture.height, alone=alone)


def _view_picture(part: ReadImage | DrawnImage, first: int, positions_I2: Tensor) -> PictureView:
    grid_G2 = positions_I2[:-1] if len(positions_I2) > 1 else positions_I2
    columns, rows = (len(torch.unique(grid_G2[:, axis])) for axis in (0, 1))
    width, height = 1 / columns, 1 / rows
    tiles = [
        TileView(
            number=first + number,
            left=x - width / 2,
            top=y - height / 2,
            width=width,
            height=height,
            is_whole=False,
        )
        for number, (x, y) in enumerate(grid_G2.tolist())
    ]
    return PictureView(
        width=part.picture.width,
        height=part.picture.height,
        is_drawn=isinstance(part, DrawnImage),
        columns=columns,
        rows=rows,
        tiles=(*tiles[: len(positions_I2) - 1], _whole(first + len(positions_I2) - 1)),
    )


def _whole(number: int) -> TileView:
    return TileView(number=number, left=0.0, top=0.0, width=1.0, height=1.0, is_whole=True)


def tile_pictures(tiles: Sequence[Tensor] | Tensor, *, longest: int) -> list[Image.Image]:
    """Tiles as pictures, at most that many pixels across.

    Args:
        tiles: uint8 [I, 3, S, S].
        longest: pixels.
    """
    pictures = [to_picture(tile) for tile in tiles]
    for picture in pictures:
        picture.thumbnail((longest, longest), Image.Resampling.BOX)
    return pictures
