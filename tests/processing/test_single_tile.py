"""One tile per picture, in each of three fits."""

import pytest
import torch

from mllm_npu.errors import ConfigError
from mllm_npu.processing.image_transform import stretch, to_tensor
from mllm_npu.processing.picture_fit import crop_centre, pad_to_square
from mllm_npu.processing.single_tile import SingleTile
from mllm_npu.processing.tile_buffer import TileBuffer


def test_each_fit_is_what_it_says(picture):
    image = picture(20, 9)
    whole = {
        fit: SingleTile(tile_size=8, fit=fit).whole(image) for fit in ("crop", "pad", "stretch")
    }
    assert torch.equal(whole["crop"], crop_centre(image, 8))
    square = pad_to_square(image, (122, 116, 104))
    assert torch.equal(whole["pad"], stretch(square, 8))
    assert torch.equal(whole["stretch"], stretch(image, 8))
    assert len({tiles.sum().item() for tiles in whole.values()}) == 3


def test_a_larger_shorter_edge_keeps_less(picture):
    image = picture(30, 20)
    tile = SingleTile(tile_size=8, shortest_edge=20).whole(image)
    assert torch.equal(tile, to_tensor(image)[:, 6:14, 11:19])


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_a_picture_is_one_tile_in_the_memory_it_is_given(fit, picture):
    tiling = SingleTile(tile_size=8, fit=fit)
    buffer = TileBuffer(capacity=2, tile_size=8)
    first, centre = tiling.split(picture(30, 20), buffer=buffer)
    second, _ = tiling.split(picture(3, 50), alone=False, buffer=buffer)
    assert buffer.join([first, second]).shape == (2, 3, 8, 8)
    assert buffer.join([first, second]).data_ptr() == first.data_ptr()
    assert torch.equal(first[0], tiling.whole(picture(30, 20)))
    assert centre.tolist() == [[0.5, 0.5]]
    assert tiling.num_tiles(5000, 3) == tiling.max_tiles == 1
    assert tiling.num_tokens(5000, 3, per_tile=9) == 9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fit": "squash"}, "crop, pad, stretch"),
        ({"tile_size": 0}, "at least one pixel"),
        ({"shortest_edge": 7}, "no shorter edge"),
        ({"background": (0, 0)}, "red, green and blue"),
        ({"background": (0, 0, 256)}, "0..255"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        SingleTile(**{"tile_size": 8, **settings})


def test_what_differs_is_described():
    told = [
        SingleTile(tile_size=8).describe(),
        SingleTile(tile_size=9).describe(),
        SingleTile(tile_size=8, fit="pad").describe(),
        SingleTile(tile_size=8, shortest_edge=9).describe(),
    ]
    assert len(set(told)) == len(told)
