"""Rasters and stored pictures are pictures as Pillow's are, and turn into them."""

import numpy as np
import pytest
import torch
from PIL import Image

from mllm_npu.errors import DataError
from mllm_npu.processing.image_transform import open_picture, stretch, to_tensor
from mllm_npu.processing.raster import Raster, StoredPicture, decoded, to_pillow


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


def test_a_stored_picture_has_a_size_without_its_pixels(raster):
    stored = StoredPicture(b"bytes", (7, 5), lambda _: pytest.fail("decoded"))
    assert (stored.width, stored.height) == stored.size == (7, 5)


def test_a_stored_picture_is_decoded_where_pixels_are_needed(raster):
    asked = []
    stored = StoredPicture(b"bytes", (7, 5), lambda data: asked.append(data) or raster)
    assert decoded(stored) is raster
    assert np.array_equal(np.asarray(to_pillow(stored)), raster.pixels)
    assert torch.equal(to_tensor(stored), to_tensor(raster))
    assert torch.equal(stretch(stored, 4), stretch(raster, 4))
    assert torch.equal(stretch(stored, 4, exact=False), stretch(raster, 4, exact=False))
    assert asked == [b"bytes"] * 5


def test_what_has_pixels_is_the_very_object(raster):
    picture = Image.new("RGB", (3, 2))
    assert decoded(picture) is picture
    assert decoded(raster) is raster


def test_broken_bytes_show_when_they_are_decoded():
    stored = StoredPicture(b"rubbish", (7, 5), open_picture)
    for use in (decoded, to_pillow, to_tensor):
        with pytest.raises(DataError, match="cannot be decoded"):
            use(stored)
