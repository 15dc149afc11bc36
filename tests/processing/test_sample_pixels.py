"""Pictures become tiles in reading order, and what an image decoder learns from."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from PIL import Image

from mllm_npu.errors import SkipSample
from mllm_npu.processing.anyres import AnyResolution
from mllm_npu.processing.image_transform import open_picture
from mllm_npu.processing.raster import Raster, StoredPicture
from mllm_npu.processing.sample_pixels import SamplePixels, cut_pictures
from mllm_npu.processing.tile_buffer import TileBuffer

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


def test_tiles_lie_in_the_buffer_in_reading_order():
    shades, drawn = [200, 7, 9, 200], [False, True, False, False]
    plain, buffer = cut(shades, drawn, picture_size=6), TileBuffer(capacity=9, tile_size=4)
    buffer.take(1)
    pixels = cut(shades, drawn, picture_size=6, buffer=buffer)
    for field in fields(SamplePixels):
        first, second = getattr(pixels, field.name), getattr(plain, field.name)
        assert first is second is None or torch.equal(first, second), field.name
    assert buffer.used == 1 + len(plain.tiles)
    assert pixels.tiles.data_ptr() == buffer.join([pixels.tiles]).data_ptr()
    assert pixels.tiles.permute(0, 2, 3, 1).is_contiguous()
    assert plain.tiles.permute(0, 2, 3, 1).is_contiguous()


@pytest.mark.parametrize("capacity", range(9))
def test_a_buffer_that_is_too_small_changes_nothing(capacity):
    shades, drawn = [200, 7, 9, 200], [False, True, False, False]
    buffer = TileBuffer(capacity=capacity, tile_size=4)
    assert torch.equal(cut(shades, drawn, buffer=buffer).tiles, cut(shades, drawn).tiles)


def test_without_pictures_a_buffer_stays_as_it_is():
    buffer = TileBuffer(capacity=2, tile_size=4)
    assert cut([], [], buffer=buffer).tiles.shape == (0, 3, 4, 4)
    assert buffer.used == 0


def test_rasters_and_pillows_pictures_are_cut_alike():
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 255, (5, n, 3), dtype=np.uint8) for n in (5, 11)]
    given = [
        cut_pictures(
            [make(array) for array in arrays],
            [False, True],
            any_resolution=TILES,
            picture_size=6,
            condition_pictures=True,
        )
        for make in (Raster, Image.fromarray)
    ]
    for field in fields(SamplePixels):
        assert torch.equal(*(getattr(pixels, field.name) for pixels in given)), field.name


def test_each_stored_picture_is_decoded_once():
    asked = []

    def store(shade):
        return StoredPicture(b"", (4, 4), lambda _: asked.append(shade) or plain(shade))

    drawn = [False, True, True]
    given = [
        cut_pictures(
            [make(shade) for shade in (10, 20, 30)],
            drawn,
            any_resolution=TILES,
            picture_size=6,
            condition_pictures=True,
        )
        for make in (store, plain)
    ]
    assert asked == [10, 20, 30]
    for field in fields(SamplePixels):
        assert torch.equal(*(getattr(pixels, field.name) for pixels in given)), field.name


def test_a_stored_picture_that_cannot_be_decoded_skips_the_sample_and_takes_no_tiles():
    buffer = TileBuffer(capacity=9, tile_size=4)
    pictures = [plain(5), StoredPicture(b"rubbish", (4, 4), open_picture)]
    with pytest.raises(SkipSample, match=r"^picture cannot be read$"):
        cut_pictures(
            pictures, [False, False], any_resolution=TILES, picture_size=None, buffer=buffer
        )
    assert buffer.used == 0


def test_numbers_of_one_sample_are_those_of_another_of_its_kind():
    first, second = (cut([200, 7], [False, True]) for _ in range(2))
    assert first.read_tiles.tolist() == second.read_tiles.tolist() == [0, 1, 2]
    assert cut([7], [False]).read_tiles.tolist() == [0]
    assert cut([7], [True]).read_tiles.dtype == torch.int64
