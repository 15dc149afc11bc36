"""The grid fits the picture, tiles cover it, and the whole picture comes last.

The few vectors here are from the recorded ones, so that the rule is checked without them too.
"""

import numpy as np
import pytest
import torch

from mllm_npu.errors import ConfigError
from mllm_npu.processing.anyres import AnyResolution
from mllm_npu.processing.image_transform import stretch, to_tensor
from mllm_npu.processing.raster import Raster
from mllm_npu.processing.tile_buffer import TileBuffer

LAION = ["1x1", "1x2", "1x3", "1x4", "1x5", "2x1", "3x1", "4x1", "5x1", "2x2", "2x3", "3x2"]


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((640, 480), (2, 2)),
        ((448, 448), (1, 1)),
        ((449, 447), (1, 1)),
        ((896, 448), (2, 1)),
        ((1344, 448), (3, 1)),
        ((300, 300), (1, 1)),
    ],
)
def test_the_grid_is_the_recorded_one(size, grid):
    cut = AnyResolution(grids=LAION, tile_size=448)
    assert cut.choose(*size) == grid
    assert cut.num_tiles(*size) == grid[0] * grid[1] + 1


def test_tiles_go_row_by_row_and_then_the_whole(picture):
    cut = AnyResolution(grids=["3x2"], tile_size=4)
    image = picture(12, 8)
    tiles, positions = cut.split(image)
    pixels = to_tensor(image)
    for number in range(6):
        row, column = divmod(number, 3)
        part = pixels[:, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4]
        assert torch.equal(tiles[number], part)
        expected = torch.tensor([(column + 0.5) / 3, (row + 0.5) / 2])
        torch.testing.assert_close(positions[number], expected)
    assert torch.equal(tiles[6], stretch(image, 4))
    assert positions[6].tolist() == [0.5, 0.5]
    assert tiles.dtype == torch.uint8
    assert tiles.permute(0, 2, 3, 1).is_contiguous()
    assert positions.dtype == torch.float32


def test_a_picture_is_stretched_onto_its_grid(picture):
    image = picture(13, 9)
    tiles, _ = AnyResolution(grids=["2x1"], tile_size=8).split(image)
    stretched = stretch(image, (8, 16))
    assert torch.equal(torch.cat([tiles[0], tiles[1]], dim=2), stretched)


def test_a_single_tile_is_repeated_unless_told_not_to(picture):
    image = picture(5, 5)
    twice, _ = AnyResolution(grids=["1x1"], tile_size=4).split(image)
    assert torch.equal(twice[0], twice[1])
    cut = AnyResolution(grids=["1x1", "2x1"], tile_size=4, repeat_single_tile=False)
    once, positions = cut.split(image)
    assert torch.equal(once, twice[:1])
    assert positions.tolist() == [[0.5, 0.5]]
    assert cut.num_tiles(5, 5) == 1
    assert cut.num_tiles(8, 4) == 3


def test_the_number_of_tiles_is_that_of_the_split(picture):
    cut = AnyResolution(grids=["1x1", "1x2", "2x1", "2x2"], tile_size=4, repeat_single_tile=False)
    counts = set()
    for size in [(1, 1), (3, 9), (9, 3), (8, 8), (100, 7)]:
        tiles, positions = cut.split(picture(*size))
        assert cut.num_tiles(*size) == len(tiles) == len(positions) <= cut.max_tiles
        counts.add(len(tiles))
    assert counts == {1, 3, 5}
    assert cut.max_tiles == 5


def test_the_faster_way_is_close(picture):
    image = picture(50, 37)
    exact, _ = AnyResolution(grids=["2x2"], tile_size=16).split(image)
    fast, _ = AnyResolution(grids=["2x2"], tile_size=16, exact=False).split(image)
    assert (exact.int() - fast.int()).abs().max() <= 2


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("repeat_single_tile", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (13, 9), (16, 8), (40, 11), (7, 50), (33, 16)])
def test_tiles_are_the_same_in_a_buffer(picture, size, repeat_single_tile, exact):
    cut = AnyResolution(
        grids=["1x1", "2x1", "3x2", "1x3"],
        tile_size=8,
        repeat_single_tile=repeat_single_tile,
        exact=exact,
    )
    image, buffer = picture(*size), TileBuffer(capacity=20, tile_size=8)
    plain, positions = cut.split(image)
    buffer.take(2)
    tiles, same_positions = cut.split(image, buffer=buffer)
    assert torch.equal(tiles, plain)
    assert torch.equal(same_positions, positions)
    assert buffer.used == 2 + cut.num_tiles(*size) == 2 + len(tiles)
    assert {one.permute(0, 2, 3, 1).is_contiguous() for one in (tiles, plain)} == {True}
    again, _ = cut.split(image, buffer=buffer)
    assert again.data_ptr() == tiles.data_ptr() + tiles.numel()
    assert torch.equal(again, tiles)


@pytest.mark.parametrize("size", [(8, 8), (13, 9), (40, 11)])
def test_a_full_buffer_changes_nothing(picture, size):
    cut = AnyResolution(grids=["1x1", "2x1", "3x2"], tile_size=8)
    tiles, _ = cut.split(picture(*size), buffer=TileBuffer(capacity=1, tile_size=8))
    assert torch.equal(tiles, cut.split(picture(*size))[0])


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("size", [(4, 4), (8, 8), (31, 17)])
def test_the_whole_picture_goes_where_it_is_told(picture, size, exact):
    cut = AnyResolution(grids=["1x1"], tile_size=8, exact=exact)
    place = TileBuffer(capacity=1, tile_size=8).take(1)
    given = cut.whole(picture(*size), out=place)
    assert (given.data_ptr(), given.shape) == (place.data_ptr(), (3, 8, 8))
    assert torch.equal(place[0], cut.whole(picture(*size)))
    assert torch.equal(place[0], cut.split(picture(*size))[0][-1])


@pytest.mark.parametrize("exact", [True, False])
def test_a_raster_is_cut_as_pillows_picture(picture, exact):
    image = picture(29, 13)
    cut = AnyResolution(grids=["2x1", "3x2"], tile_size=8, exact=exact)
    assert torch.equal(cut.split(Raster(np.array(image)))[0], cut.split(image)[0])


def test_the_tiles_and_the_whole_of_the_faster_way_are_those_of_its_stretching(picture):
    image = picture(50, 37)
    cut = AnyResolution(grids=["2x3"], tile_size=8, exact=False)
    tiles, _ = cut.split(image)
    stretched = stretch(image, (24, 16), exact=False)
    for number in range(6):
        row, column = divmod(number, 2)
        part = stretched[:, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8]
        assert torch.equal(tiles[number], part)
    assert torch.equal(tiles[6], stretch(image, 8, exact=False))


@pytest.mark.parametrize("grid", ["2", "2x", "x2", "0x1", "ax2", "2x-1", "2x2x2", ""])
def test_a_grid_that_cannot_be_read_is_refused(grid):
    with pytest.raises(ConfigError, match="<columns>x<rows>"):
        AnyResolution(grids=[grid], tile_size=8)


def test_no_grid_and_no_pixels_are_refused():
    with pytest.raises(ConfigError, match="at least one"):
        AnyResolution(grids=[], tile_size=8)
    with pytest.raises(ConfigError, match="tile_size=0"):
        AnyResolution(grids=["1x1"], tile_size=0)
