"""The Qwen-VL encoder: shapes, its attention against a slow form, sizes that do not fit."""

import math

import pytest
import torch

from mllm_npu.errors import ConfigError, DataError
from mllm_npu.models.vision_encoder.qwen_vit import QwenVisionEncoder
from mllm_npu.models.weights import save_weights

SIZES = {
    "tile_size": 16,
    "patch_size": 4,
    "hidden_width": 24,
    "num_layers": 2,
    "num_heads": 3,
    "mlp_ratio": 2.0,
    "width": 128,
    "num_tokens": 4,
}


def tiles(count=2, size=16):
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)


def test_shapes_gradients_and_units():
    encoder = QwenVisionEncoder(**SIZES)
    features = encoder(tiles())
    assert features.shape == (2, 4, 128)
    features.sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())
    assert len(encoder.sharding_units()) == 2


def test_pixels_are_normalised_by_mean_and_std():
    encoder = QwenVisionEncoder(**SIZES)
    given = tiles(1)
    pixels = given.float() / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (encoder.mean, encoder.std))
    torch.testing.assert_close(
        encoder(given), encoder.encode_pixels((pixels - mean) / std), atol=1e-5, rtol=1e-4
    )
    zeros = encoder.encode_pixels(torch.zeros(1, 3, 16, 16))
    torch.testing.assert_close(encoder(encoder.empty_tile()[None]), zeros, atol=1e-3, rtol=1e-3)


def slow_attention(layer, hidden):
    """Head by head: of each head's slice of in_proj a third is query, key and value."""
    projected, width = layer.in_proj(hidden), hidden.shape[-1] // layer.num_heads
    heads = []
    for head in range(layer.num_heads):
        start = 3 * head * width
        query, key, value = (
            projected[..., start + part * width : start + (part + 1) * width] for part in range(3)
        )
        heads.append((query @ key.transpose(1, 2) / math.sqrt(width)).softmax(-1) @ value)
    return layer.out_proj(torch.cat(heads, -1))


def test_attention_equals_its_slow_form_forward_and_backward():
    layer = QwenVisionEncoder(**SIZES).transformer.resblocks[0].attn
    results = []
    for attend in (layer, lambda hidden: slow_attention(layer, hidden)):
        torch.manual_seed(0)
        layer.zero_grad()
        hidden = torch.randn(2, 5, 24, requires_grad=True)
        out = attend(hidden)
        out.square().sum().backward()
        results.append((out.detach(), hidden.grad, layer.in_proj.weight.grad.clone()))
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow)


def test_other_grids_stretch_the_positions():
    encoder = QwenVisionEncoder(**SIZES)
    assert encoder.positional_embedding.shape == (256, 24)
    assert encoder.encode_pixels(torch.randn(1, 3, 64, 64)).shape == (1, 4, 128)
    places = torch.arange(256)
    with torch.no_grad():
        encoder.positional_embedding[:, 0] = places // 16
        encoder.positional_embedding[:, 1] = places % 16
    rows, columns = encoder._positions(4, 8).view(4, 8, -1)[:, 1:-1, :2].unbind(-1)
    # Halves between two places are exact on a slope; the outer columns reach over the edge.
    torch.testing.assert_close(rows, (torch.arange(4.0) * 4 + 1.5)[:, None].expand(4, 6))
    torch.testing.assert_close(columns, (torch.arange(1.0, 7) * 2 + 0.5).expand(4, 6))


def test_the_feed_forward_has_an_exact_gelu():
    layer = QwenVisionEncoder(**SIZES).transformer.resblocks[0].mlp
    hidden = torch.randn(2, 5, 24) * 3
    inner = layer.c_fc(hidden)
    torch.testing.assert_close(
        layer(hidden), layer.c_proj(inner * torch.special.ndtr(inner)), atol=1e-6, rtol=1e-5
    )


def test_places_of_tiles_count_where_they_are_learnt():
    encoder = QwenVisionEncoder(**SIZES, patch_positions=True)
    given = tiles(1)
    here, there = (encoder(given, torch.tensor([[x, 0.5]])) for x in (0.25, 0.75))
    assert not torch.allclose(here, there)
    with pytest.raises(DataError, match="patch_positions=True"):
        encoder(given)
    with pytest.raises(DataError, match="patch_positions=False"):
        QwenVisionEncoder(**SIZES)(given, torch.tensor([[0.5, 0.5]]))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_are_loaded_from_a_path(tmp_path, dtype):
    saved = QwenVisionEncoder(**SIZES)
    save_weights(tmp_path, saved)
    loaded = QwenVisionEncoder(**SIZES, path=str(tmp_path), dtype=dtype)
    assert loaded.proj.dtype == getattr(torch, dtype)
    torch.testing.assert_close(loaded.proj.float(), saved.proj, atol=1e-2, rtol=1e-2)
    assert not any(parameter.is_meta for parameter in loaded.parameters())
    torch.save(saved.state_dict(), tmp_path / "qwen_vit_G.pt")
    again = QwenVisionEncoder(**SIZES, path=str(tmp_path / "qwen_vit_G.pt"))
    assert torch.equal(again.proj, saved.proj)
    with torch.device("meta"):
        assert QwenVisionEncoder(**SIZES, path="nowhere").proj.is_meta


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": 5}, "tile_size=16 into whole patches"),
        ({"num_heads": 5}, "hidden_width=24 into num_heads=5"),
        ({"width": 100}, "width=100 must be a multiple"),
        ({"num_tokens": 5}, "got 5"),
        ({"hidden_width": 0}, "hidden_width=0 into num_heads=3"),
        ({"mean": (0.5,)}, r"three means .* got mean=\(0.5,\)"),
        ({"std": (1.0, 0.0, 1.0)}, "three positive stds"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        QwenVisionEncoder(**SIZES | changes)


def test_tiles_of_another_size_are_refused():
    with pytest.raises(DataError, match="processor to 16"):
        QwenVisionEncoder(**SIZES)(tiles(1, 20))
