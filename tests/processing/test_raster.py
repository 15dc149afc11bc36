"""A raster is a picture as Pillow's are, and turns into one."""

import numpy as np
import pytest
import torch
from PIL import Image

from mllm_npu.processing.image_transform import to_tensor
from mllm_npu.processing.raster import Raster, to_pillow


@pytest.fixture
def raster():
    return Raster(np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3))


def test_sizes_are_ordered_as_pillows(raster):
    assert (raster.width, raster.height) == raster.size == (7, 5)
    assert to_pillow(raster).size == raster.size
    assert {type(number) for number in raster.size} == {int}


def test_a_raster_becomes_a_picture_of_the_same_pixels(raster):
    picture = to_pillow(raster)
    assert picture.mode == "RGB"
    assert np.array_equal(np.asarray(picture), raster.pixels)
    assert picture.getpixel((6, 4)) == tuple(raster.pixels[4, 6].tolist())


def test_the_picture_is_a_copy(raster):
    picture, before = to_pillow(raster), raster.pixels.copy()
    picture.putpixel((0, 0), (9, 9, 9))
    assert np.array_equal(raster.pixels, before)


def test_a_picture_stays_the_very_object():
    picture = Image.new("L", (3, 2))
    assert to_pillow(picture) is picture


def test_both_give_the_same_tensor(raster):
    pixels = to_tensor(raster)
    assert torch.equal(pixels, to_tensor(to_pillow(raster)))
    assert pixels.shape == (3, 5, 7)
    assert pixels.data_ptr() == raster.pixels.ctypes.data


def test_rasters_are_equal_as_objects_only(raster):
    assert raster == raster
    assert raster != Raster(raster.pixels)
    assert len({raster, Raster(raster.pixels)}) == 2
