"""Tiles and their number are those of LLaVA-NeXT and LLaVA-OneVision."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.image_processing_utils import select_best_resolution
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)

from mllm_npu.errors import ConfigError
from mllm_npu.processing.grid_tokens import join_grid
from mllm_npu.processing.joined_tiles import JoinedTiles
from mllm_npu.processing.tile_buffer import TileBuffer

GRIDS = ("1x1", "2x1", "1x2", "2x2", "3x1", "1x3", "3x2")
SIZES = [(8, 8), (50, 40), (200, 21), (19, 300), (3, 2), (1, 4000), (61, 43)]


@pytest.fixture
def tiling():
    return JoinedTiles(grids=GRIDS, tile_size=12, max_grid_tiles=2, one_tile_in_company=True)


@pytest.fixture
def noise():
    def make(width, height):
        levels = np.random.default_rng(6).integers(0, 256, (height, width, 3), dtype=np.uint8)
        return Image.fromarray(levels)

    return make


def library_tiles(picture, *, alone=True):
    """Tiles of transformers, not normalised, the whole picture moved to their end."""
    pinpoints = [[12 * int(grid[2]), 12 * int(grid[0])] for grid in GRIDS]
    rules = LlavaOnevisionImageProcessorPil(
        size={"height": 12, "width": 12},
        image_grid_pinpoints=pinpoints,
        image_mean=[0.5] * 3,
        do_rescale=False,
        do_normalize=False,
    )
    given = [picture] if alone else [[picture, picture]]
    pixels = rules(given, return_tensors="pt")["pixel_values"][0]
    return torch.cat([pixels[1:], pixels[:1]])


@pytest.mark.parametrize("size", SIZES)
def test_tiles_are_those_of_transformers(tiling, noise, size):
    picture = noise(*size)
    tiles, centres = tiling.split(picture)
    expected = library_tiles(picture)
    assert torch.equal(tiles, expected.to(torch.uint8))
    assert len(tiles) == len(centres) == tiling.num_tiles(*size)
    assert centres[-1].tolist() == [0.5, 0.5]
    best = select_best_resolution(size[::-1], [[12 * int(g[2]), 12 * int(g[0])] for g in GRIDS])
    assert tiling.choose(*size) == (best[1] // 12, best[0] // 12)


def test_beside_others_a_picture_is_one_tile_on_a_square(tiling, noise):
    picture = noise(50, 21)
    tiles, centres = tiling.split(picture, alone=False)
    assert torch.equal(tiles, library_tiles(picture, alone=False)[-1:].to(torch.uint8))
    assert centres.tolist() == [[0.5, 0.5]]
    assert tiling.num_tiles(50, 21, alone=False) == 1
    assert tiling.num_tokens(50, 21, per_tile=9, alone=False) == 10
    assert tiling.token_sources(50, 21, per_tile=9, alone=False).sources.shape == (10, 1)
    lone = JoinedTiles(grids=GRIDS, tile_size=12)
    assert lone.num_tiles(50, 21, alone=False) == lone.num_tiles(50, 21) > 1


def test_tokens_are_those_of_the_chosen_grid(tiling):
    columns, rows = tiling.choose(61, 43)
    expected = join_grid(61, 43, columns=columns, rows=rows, side=3, max_tiles=2)
    found = tiling.token_sources(61, 43, per_tile=9)
    assert torch.equal(found.sources, expected.sources)
    assert tiling.num_tokens(61, 43, per_tile=9) == len(found.sources)


def test_tiles_lie_in_the_memory_they_are_given(tiling, noise):
    buffer = TileBuffer(capacity=10, tile_size=12)
    first, _ = tiling.split(noise(50, 40), buffer=buffer)
    second, _ = tiling.split(noise(50, 40), alone=False, buffer=buffer)
    assert buffer.used == len(first) + 1
    assert buffer.join([first, second]).data_ptr() == first.data_ptr()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grids": []}, "No grid"),
        ({"grids": ["2by2"]}, "2by2"),
        ({"tile_size": 0}, "from 1 on"),
        ({"max_grid_tiles": 0}, "max_grid_tiles=0"),
        ({"background": (1, 2)}, "red, green and blue"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        JoinedTiles(**{"grids": GRIDS, "tile_size": 12, **settings})


def test_the_most_tiles_and_what_tokens_follow_from(tiling):
    assert tiling.max_tiles == 7
    assert tiling.describe() != JoinedTiles(grids=GRIDS, tile_size=12).describe()
    assert (
        JoinedTiles(grids=GRIDS[:2], tile_size=12).describe()
        != JoinedTiles(grids=GRIDS, tile_size=12).describe()
    )
