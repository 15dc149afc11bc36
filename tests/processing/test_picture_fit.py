"""Pixels are those of transformers' image processors, to the bit."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.image_utils import SizeDict
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import (
    LlavaNextImageProcessorPil,
)

from mllm_npu.processing import picture_fit
from mllm_npu.processing.image_transform import to_tensor
from mllm_npu.processing.picture_fit import crop_centre, fit_inside, pad_to_square
from mllm_npu.processing.raster import Raster

SIZES = [(24, 24), (50, 40), (200, 21), (19, 300), (3, 2), (61, 43), (25, 24), (24, 25)]


@pytest.fixture
def noise():
    def make(width, height):
        levels = np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)
        return Image.fromarray(levels)

    return make


def planes(picture):
    return np.moveaxis(np.array(picture), -1, 0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("target", [(48, 48), (24, 72), (72, 24)])
def test_fitting_inside_is_what_llava_next_does(noise, size, target):
    picture, rules = noise(*size), LlavaNextImageProcessorPil()
    resized = rules._resize_for_patching(planes(picture), target, resample=3)
    expected = rules._pad_for_patching(resized, target) if resized.shape[1:] != target else resized
    # Their padding asks for the size of what is resized once more, which is the same.
    assert expected.shape[1:] == target
    found = fit_inside(picture, target)
    assert found.dtype == torch.uint8
    assert np.array_equal(found.numpy(), expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("edge", [24, 30])
def test_the_middle_is_what_clip_cuts_out(noise, size, edge):
    picture, rules = noise(*size), LlavaImageProcessorPil()
    resized = rules.resize(planes(picture), SizeDict(shortest_edge=edge), resample=3)
    expected = rules.center_crop(resized, SizeDict(height=24, width=24))
    found = crop_centre(picture, 24, shortest_edge=edge)
    assert np.array_equal(found.numpy(), expected)


@pytest.mark.parametrize("size", SIZES)
def test_the_square_is_llavas(noise, size):
    picture = noise(*size)
    expected = LlavaImageProcessorPil().pad_to_square(planes(picture), (122, 116, 104))
    assert np.array_equal(to_tensor(pad_to_square(picture, (122, 116, 104))).numpy(), expected)


def test_a_decoded_raster_is_as_good_as_a_picture(noise):
    picture = noise(50, 40)
    raster = Raster(np.array(picture))
    assert torch.equal(crop_centre(raster, 24), crop_centre(picture, 24))
    assert torch.equal(fit_inside(raster, (48, 24)), fit_inside(picture, (48, 24)))
    square = pad_to_square(raster, (1, 2, 3))
    assert np.array_equal(np.array(square), np.array(pad_to_square(picture, (1, 2, 3))))


def test_a_very_long_picture_takes_no_more_memory_than_it_must(noise):
    picture = noise(40000, 2)
    assert crop_centre(picture, 24).shape == (3, 24, 24)
    middle = picture.crop((20000 - 64, 0, 20000 + 64, 2))
    assert torch.equal(crop_centre(picture, 24), crop_centre(middle, 24))


def test_a_square_of_too_many_pixels_is_made_smaller(noise, monkeypatch):
    monkeypatch.setattr(picture_fit, "MAX_PIXELS", 10000)
    square = pad_to_square(noise(400, 10), (7, 8, 9))
    assert square.size == (100, 100)
    assert square.getpixel((0, 0)) == (7, 8, 9)
    assert square.getpixel((50, 50)) != (7, 8, 9)
