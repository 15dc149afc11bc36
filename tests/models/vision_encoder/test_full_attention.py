import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mllm_npu.errors import ConfigError
from mllm_npu.models.tiny import VISION_CONFIGS, tiny_vision_encoder
from mllm_npu.models.vision_encoder.full_attention import ATTENTION_NAME, attention_forward
from mllm_npu.ops.ways import calls


@pytest.mark.parametrize("heads", [4, 2])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_every_token_sees_all_and_key_heads_are_shared(heads, scaling):
    query = torch.randn(3, 4, 7, 8)
    key, value = (torch.randn(3, heads, 7, 8) for _ in range(2))
    out, weights = attention_forward(nn.Identity(), query, key, value, None, scaling=scaling)
    truth = F.scaled_dot_product_attention(query, key, value, scale=scaling, enable_gqa=True)
    torch.testing.assert_close(out, truth.transpose(1, 2))
    assert out.is_contiguous()
    assert weights is None


@pytest.mark.parametrize("name", ["attention_mask", "position_bias"])
def test_what_it_does_not_know_is_refused(name):
    parts = [torch.randn(1, 1, 2, 4)] * 3
    asked = {"attention_mask": None, name: torch.ones(1)}
    with pytest.raises(ConfigError, match=f"Identity asks for attention with '{name}'"):
        attention_forward(nn.Identity(), *parts, asked.pop("attention_mask"), **asked)


@pytest.mark.parametrize("family", list(VISION_CONFIGS))
def test_encoders_attend_through_it(family):
    encoder = tiny_vision_encoder(family)
    assert encoder.vision_model.config._attn_implementation == ATTENTION_NAME
    before = calls()
    encoder(torch.zeros(2, 3, encoder.tile_size, encoder.tile_size, dtype=torch.uint8))
    made = sum(n for (op, _), n in (calls() - before).items() if op == "attend")
    assert made == len(encoder.sharding_units())
