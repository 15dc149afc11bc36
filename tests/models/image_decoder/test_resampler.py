"""The resampler gives text tokens from any number of features."""

import math

import pytest
import torch

from mllm_npu.errors import ConfigError
from mllm_npu.models.image_decoder.resampler import ResamplerXLV2

SIZES = {
    "dim": 16,
    "depth": 2,
    "dim_head": 4,
    "heads": 2,
    "num_queries": 3,
    "embedding_dim": 12,
    "output1_dim": 5,
    "output2_dim": 7,
}


@pytest.mark.parametrize("num_features", [1, 4, 9])
def test_shapes_and_gradients(num_features):
    resampler = ResamplerXLV2(**SIZES)
    tokens, pooled = resampler(torch.randn(2, num_features, 12))
    assert tokens.shape == (2, 3, 12)
    assert pooled.shape == (2, 7)
    (tokens.sum() + pooled.sum()).backward()
    assert all(parameter.grad is not None for parameter in resampler.parameters())


def slow_attention(layer, seen, hidden):
    """Attention written out, head by head."""
    seen, hidden = layer.norm1(seen), layer.norm2(hidden)
    query = layer.to_q(hidden)
    key, value = layer.to_kv(torch.cat([seen, hidden], 1)).chunk(2, -1)
    heads = []
    for part in range(layer.heads):
        here = slice(part * 4, part * 4 + 4)
        scores = query[..., here] @ key[..., here].transpose(1, 2) / math.sqrt(4)
        heads.append(scores.softmax(-1) @ value[..., here])
    return layer.to_out(torch.cat(heads, -1))


def test_attention_equals_its_slow_form_forward_and_backward():
    layer = ResamplerXLV2(**SIZES).layers[0][0]
    results = []
    for attend in (layer, lambda *given: slow_attention(layer, *given)):
        torch.manual_seed(1)
        seen = torch.randn(2, 4, 16, requires_grad=True)
        hidden = torch.randn(2, 3, 16, requires_grad=True)
        out = attend(seen, hidden)
        out.square().sum().backward()
        results.append((out.detach(), seen.grad, hidden.grad))
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow)


def test_normalising_the_features_makes_their_length_irrelevant():
    resampler = ResamplerXLV2(**SIZES, normalize="features")
    features = torch.randn(1, 4, 12)
    torch.testing.assert_close(resampler(features)[0], resampler(3 * features)[0])
    lengths = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1)
    torch.testing.assert_close(resampler(features)[0], resampler(lengths * features)[0])


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match=r"embedding_dim=12, got \[1, 4, 11\]"):
        ResamplerXLV2(**SIZES)(torch.randn(1, 4, 11))
    with pytest.raises(ConfigError, match="heads=3"):
        ResamplerXLV2(**SIZES | {"heads": 3})
    with pytest.raises(ConfigError, match="normalize=True"):
        ResamplerXLV2(**SIZES, normalize=True)
