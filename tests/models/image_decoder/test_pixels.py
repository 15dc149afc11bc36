"""Levels become pixels and come back unchanged."""

import pytest
import torch

from mllm_npu.errors import RequestError
from mllm_npu.models.image_decoder.pixels import to_levels, to_pixels


def test_every_level_survives_the_way_there_and_back():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    pixels = to_pixels(levels, 16)
    assert (pixels.min().item(), pixels.max().item()) == (-1, pytest.approx(1))
    assert torch.equal(to_levels(pixels), levels)
    assert to_levels(torch.tensor([[[[-3.0, 3.0]]]])).tolist() == [[[[0, 255]]]]


def test_pictures_of_another_size_are_refused():
    with pytest.raises(RequestError, match="processor's picture_size to 8"):
        to_pixels(torch.zeros(1, 3, 9, 9, dtype=torch.uint8), 8)
