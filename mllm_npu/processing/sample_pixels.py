"""Turn the pictures of one sample into tiles, and into what an image decoder learns from.

Shape letters: I tiles, R read tiles, G drawn pictures, S pixels of an edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from mllm_npu.errors import DataError, SkipSample
from mllm_npu.processing.image_transform import stretch
from mllm_npu.processing.raster import DecodedPicture, Picture, decoded
from mllm_npu.processing.tile_buffer import TileBuffer, join_tiles
from mllm_npu.processing.tiling import Tiling

_CENTRE = torch.tensor([[0.5, 0.5]])


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePixels:
    """The picture fields of `mllm_npu.batch.Sample`, under the same names."""

    tiles: Tensor
    tile_positions: Tensor
    read_tiles: Tensor
    draw_tiles: Tensor
    pictures: Tensor | None
    conditions: Tensor | None
    condition_weights: Tensor | None


def cut_pictures(
    pictures: Sequence[Picture],
    drawn: Sequence[bool],
    *,
    any_resolution: Tiling,
    picture_size: int | None,
    condition_pictures: bool = False,
    buffer: TileBuffer | None = None,
) -> SamplePixels:
    """Cut what is read into tiles; what is drawn needs one tile, the whole picture.

    Args:
        pictures: in reading order.
        drawn: which of them are drawn.
        any_resolution: cuts read pictures into tiles.
        picture_size: S, of the image decoder that is trained; None: no decoder.
        condition_pictures: whether that decoder takes the picture before a drawn one, read or
            drawn, to change it.
        buffer: gives the memory of the tiles.

    Raises:
        SkipSample: if a stored picture cannot be decoded.
    """
    if not pictures:
        return _nothing(any_resolution.tile_size, picture_size, condition_pictures)
    tiles: list[Tensor] = []
    positions: list[Tensor] = []
    numbers: tuple[list[int], list[int]] = ([], [])
    pixels = [decode_or_skip(picture) for picture in pictures]
    alone = len(drawn) - sum(drawn) == 1
    for picture, is_drawn in zip(pixels, drawn, strict=True):
        first = len(numbers[0]) + len(numbers[1])
        if is_drawn:
            cut, places = _cut_whole(picture, any_resolution, buffer), _CENTRE
        else:
            cut, places = any_resolution.split(picture, alone=alone, buffer=buffer)
        tiles.append(cut)
        positions.append(places)
        numbers[is_drawn].extend(range(first, first + len(cut)))
    targets, conditions, weights = None, None, None
    if picture_size is not None:
        places_drawn = [place for place, is_drawn in enumerate(drawn) if is_drawn]
        size, exact = picture_size, any_resolution.exact
        targets = _stretch_all([pixels[place] for place in places_drawn], size, exact=exact)
        if condition_pictures:
            before = [pixels[place - 1] if place else None for place in places_drawn]
            conditions = _stretch_all(before, size, exact=exact)
            weights = torch.tensor([float(picture is not None) for picture in before])
    return SamplePixels(
        tiles=_join(tiles, size=any_resolution.tile_size, buffer=buffer),
        tile_positions=_join_positions(positions),
        read_tiles=_to_tensor(tuple(numbers[0])),
        draw_tiles=_to_tensor(tuple(numbers[1])),
        pictures=targets,
        conditions=conditions,
        condition_weights=weights,
    )


def decode_or_skip(picture: Picture) -> DecodedPicture:
    """A picture with pixels.

    Raises:
        SkipSample: if its stored bytes cannot be decoded.
    """
    try:
        return decoded(picture)
    except DataError as error:
        raise SkipSample("picture cannot be read") from error


@lru_cache(maxsize=8)
def _nothing(tile_size: int, picture_size: int | None, condition_pictures: bool) -> SamplePixels:
    """What a sample without pictures has; one for all of them, since nothing writes into it."""
    numbers = torch.empty(0, dtype=torch.int64)
    pictures = None if picture_size is None else _join([], size=picture_size)
    return SamplePixels(
        tiles=_join([], size=tile_size),
        tile_positions=torch.empty(0, 2),
        read_tiles=numbers,
        draw_tiles=numbers,
        pictures=pictures,
        conditions=pictures if condition_pictures else None,
        condition_weights=torch.empty(0) if condition_pictures and pictures is not None else None,
    )


def _cut_whole(picture: Picture, any_resolution: Tiling, buffer: TileBuffer | None) -> Tensor:
    """A picture as its one tile, uint8 [1, 3, S, S]."""
    if buffer is None:
        return any_resolution.whole(picture)[None]
    tile = buffer.take(1)
    any_resolution.whole(picture, out=tile)
    return tile


@lru_cache(maxsize=256)
def _to_tensor(numbers: tuple[int, ...]) -> Tensor:
    """Numbers of tiles, int64; kept, since most samples have the same few."""
    return torch.tensor(numbers, dtype=torch.int64)


def _stretch_all(pictures: Sequence[Picture | None], size: int, *, exact: bool) -> Tensor:
    """Pictures at the decoder's size, black where there is none, uint8 [G, 3, S, S]."""
    black = torch.zeros(3, size, size, dtype=torch.uint8)
    stretched = [
        black if picture is None else stretch(picture, size, exact=exact) for picture in pictures
    ]
    return _join([pixels[None] for pixels in stretched], size=size)


def _join_positions(positions: Sequence[Tensor]) -> Tensor:
    """Places of tiles end to end, float32 [I, 2]."""
    return positions[0] if len(positions) == 1 else torch.cat(list(positions))


def _join(blocks: Sequence[Tensor], *, size: int, buffer: TileBuffer | None = None) -> Tensor:
    """Blocks of pictures end to end, uint8 [I, 3, S, S]; without blocks, none of that size."""
    if not blocks:
        return torch.empty(0, 3, size, size, dtype=torch.uint8)
    if len(blocks) == 1:
        return blocks[0]
    return join_tiles(blocks) if buffer is None else buffer.join(blocks)
