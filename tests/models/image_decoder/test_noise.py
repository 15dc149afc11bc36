"""Noise is the same whatever is drawn beside it."""

import pytest
import torch
from torch import Generator

from mllm_npu.errors import RequestError
from mllm_npu.models.image_decoder.noise import draw_noise


def test_each_picture_has_the_noise_of_its_own_generator():
    several = [Generator().manual_seed(number) for number in (3, 4)]
    together = draw_noise((2, 4, 5), several)
    alone = draw_noise((1, 4, 5), Generator().manual_seed(4))
    assert torch.equal(together[1:], alone)
    assert draw_noise((2, 3), None).shape == (2, 3)


def test_another_number_of_generators_is_refused():
    with pytest.raises(RequestError, match="1 generators for 2 pictures"):
        draw_noise((2, 3), [Generator()])
