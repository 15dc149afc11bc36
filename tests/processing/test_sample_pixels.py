"""Pictures become tiles in reading order, and what an image decoder learns from."""

import pytest
import torch
from PIL import Image

from mllm_npu.processing.anyres import AnyResolution
from mllm_npu.processing.sample_pixels import cut_pictures

TILES = AnyResolution(grids=["1x1", "2x1"], tile_size=4, repeat_single_tile=False)


def plain(shade, size=(4, 4)):
    return Image.new("RGB", size, (shade,) * 3)


def cut(shades, drawn, **options):
    pictures = [plain(shade, (8, 4) if shade == 200 else (4, 4)) for shade in shades]
    options = {"picture_size": None} | options
    return cut_pictures(pictures, drawn, any_resolution=TILES, **options)


def test_tiles_are_numbered_in_reading_order():
    pixels = cut([200, 7, 9, 200], [False, True, False, False])
    assert pixels.tiles[:, 0, 0, 0].tolist() == [200, 200, 200, 7, 9, 200, 200, 200]
    assert pixels.read_tiles.tolist() == [0, 1, 2, 4, 5, 6, 7]
    assert pixels.draw_tiles.tolist() == [3]
    assert pixels.tile_positions[3].tolist() == [0.5, 0.5]
    assert pixels.pictures is pixels.conditions is pixels.condition_weights is None


def test_a_decoder_gets_its_targets_and_what_they_change():
    pixels = cut(
        [10, 20, 30, 40],
        [False, True, True, False],
        picture_size=6,
        condition_pictures=True,
    )
    assert pixels.pictures.shape == (2, 3, 6, 6)
    assert pixels.pictures[:, 0, 0, 0].tolist() == [20, 30]
    assert pixels.conditions[:, 0, 0, 0].tolist() == [10, 20]
    assert pixels.condition_weights.tolist() == [1, 1]


def test_a_first_drawn_picture_changes_none():
    pixels = cut([20], [True], picture_size=6, condition_pictures=True)
    assert pixels.condition_weights.tolist() == [0]
    assert pixels.conditions.abs().max() == 0


@pytest.mark.parametrize("condition_pictures", [False, True])
def test_without_pictures_shapes_stay(condition_pictures):
    pixels = cut([], [], picture_size=6, condition_pictures=condition_pictures)
    assert (pixels.tiles.shape, pixels.tiles.dtype) == ((0, 3, 4, 4), torch.uint8)
    assert pixels.tile_positions.shape == (0, 2)
    assert pixels.pictures.shape == (0, 3, 6, 6)
    assert (pixels.conditions is not None) == condition_pictures
