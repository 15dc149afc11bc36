"""Noise is the same whatever is drawn beside it."""

import pytest
import torch
from torch import Generator

from mllm_npu.errors import RequestError
from mllm_npu.models.image_decoder.noise import chosen_share, draw_noise, noise_like


def test_each_picture_has_the_noise_of_its_own_generator():
    several = [Generator().manual_seed(number) for number in (3, 4)]
    together = draw_noise((2, 4, 5), several)
    alone = draw_noise((1, 4, 5), Generator().manual_seed(4))
    assert torch.equal(together[1:], alone)
    assert draw_noise((2, 3), None).shape == (2, 3)


def test_another_number_of_generators_is_refused():
    with pytest.raises(RequestError, match="1 generators for 2 pictures"):
        draw_noise((2, 3), [Generator()])


def test_noise_of_training_has_the_form_of_the_values_and_follows_the_seed():
    values = torch.zeros(3, 2, dtype=torch.bfloat16)
    torch.manual_seed(1)
    noise, chosen = noise_like(values), chosen_share(0.25, (4000, 1), values.device)
    assert (noise.shape, noise.dtype) == (values.shape, values.dtype)
    assert chosen.dtype is torch.bool
    assert 0.2 < chosen.float().mean() < 0.3
    torch.manual_seed(1)
    assert torch.equal(noise_like(values), noise)
    assert not chosen_share(0.0, (9,), values.device).any()
    assert chosen_share(1.0, (9,), values.device).all()


def test_values_without_memory_get_noise_without_memory():
    assert noise_like(torch.empty(2, 3, device="meta")).is_meta
    assert chosen_share(0.5, (2,), torch.device("meta")).is_meta
