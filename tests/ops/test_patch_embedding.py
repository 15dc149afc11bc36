import pytest
import torch
import torch.nn.functional as F

from mllm_npu.ops import patch_embedding as module
from mllm_npu.ops.patch_embedding import (
    embed_by_product,
    patch_embedding,
    patch_embedding_reference,
)

SIZES = [
    pytest.param((8, 12), (4, 4), id="whole patches"),
    pytest.param((9, 15), (4, 4), id="a rest on both edges"),
    pytest.param((9, 15), (3, 5), id="high and wide patches"),
    pytest.param((4, 4), (4, 4), id="one patch"),
]


def make_inputs(size, patch):
    return torch.randn(2, 3, *size), torch.randn(5, 3, *patch), torch.randn(5)


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize(("size", "patch"), SIZES)
def test_a_product_and_a_convolution_are_the_reference(with_gradients, size, patch, has_bias):
    inputs = make_inputs(size, patch)[: 3 if has_bias else 2]
    truth = with_gradients(patch_embedding_reference, inputs)
    for way in (embed_by_product, patch_embedding):
        torch.testing.assert_close(with_gradients(way, inputs), truth, atol=1e-4, rtol=1e-4)


def test_elsewhere_it_is_torchs_convolution_to_the_bit():
    pixels, weight, bias = make_inputs((9, 15), (4, 4))
    assert torch.equal(
        patch_embedding(pixels, weight, bias), F.conv2d(pixels, weight, bias, stride=4)
    )


def test_an_embedding_is_the_product_of_its_own_patch():
    pixels = torch.arange(16.0).view(1, 1, 4, 4)
    out = embed_by_product(pixels, torch.ones(1, 1, 2, 2))
    assert out.tolist() == [
        [[[0 + 1 + 4 + 5, 2 + 3 + 6 + 7], [8 + 9 + 12 + 13, 10 + 11 + 14 + 15]]]
    ]


def test_under_autocast_the_product_is_narrow():
    with torch.autocast("cpu", torch.bfloat16):
        assert embed_by_product(*make_inputs((8, 8), (4, 4))).dtype == torch.bfloat16


def test_pictures_smaller_than_a_patch_are_left_to_torch_to_refuse():
    pixels, weight, _ = make_inputs((3, 8), (4, 4))
    assert not module._has_patches(pixels, weight)
    assert not module._has_patches(pixels[0], weight)
    assert module._has_patches(torch.randn(1, 3, 4, 4), weight)
    with pytest.raises(RuntimeError, match=r"[Kk]ernel size"):
        patch_embedding(pixels, weight)


def test_without_memory_both_ways_give_the_shape():
    hollow = [part.to("meta") for part in make_inputs((9, 15), (4, 4))]
    assert patch_embedding(*hollow).shape == embed_by_product(*hollow).shape == (2, 5, 2, 3)
