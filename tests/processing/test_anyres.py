"""The grid fits the picture, tiles cover it, and the whole picture comes last.

The few vectors here are from the recorded ones, so that the rule is checked without them too.
"""

import pytest
import torch

from mllm_npu.errors import ConfigError
from mllm_npu.processing.anyres import AnyResolution
from mllm_npu.processing.image_transform import stretch, to_tensor

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
    assert tiles.is_contiguous()
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


@pytest.mark.parametrize("grid", ["2", "2x", "x2", "0x1", "ax2", "2x-1", "2x2x2", ""])
def test_a_grid_that_cannot_be_read_is_refused(grid):
    with pytest.raises(ConfigError, match="<columns>x<rows>"):
        AnyResolution(grids=[grid], tile_size=8)


def test_no_grid_and_no_pixels_are_refused():
    with pytest.raises(ConfigError, match="at least one"):
        AnyResolution(grids=[], tile_size=8)
    with pytest.raises(ConfigError, match="tile_size=0"):
        AnyResolution(grids=["1x1"], tile_size=0)
