import math

import pytest
import torch
from transformers.models.gpt_neox.modeling_gpt_neox import (
    apply_rotary_pos_emb as partly_turned,
)
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb as theirs

from mllm_npu.ops import rotary as module
from mllm_npu.ops.rotary import apply_rotary_pos_emb, rotate


def make_angles(rows=2, tokens=5, width=8, dtype=torch.float32):
    angles = torch.rand(rows, tokens, width // 2) * 9
    angles = torch.cat((angles, angles), -1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


@pytest.mark.parametrize("angle_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("heads_dim", [1, 2])
def test_every_bit_is_that_of_transformers(dtype, angle_dtype, heads_dim):
    q, k = torch.randn(2, 4, 5, 8).to(dtype), torch.randn(2, 2, 5, 8).to(dtype)
    q, k = (part.transpose(1, heads_dim) for part in (q, k))
    cos, sin = make_angles(dtype=angle_dtype)
    ours = apply_rotary_pos_emb(q, k, cos, sin, unsqueeze_dim=heads_dim)
    expected = theirs(q, k, cos, sin, unsqueeze_dim=heads_dim)
    assert [one.dtype for one in ours] == [one.dtype for one in expected]
    assert all(torch.equal(one, other) for one, other in zip(ours, expected, strict=True))


def test_where_angles_are_narrower_the_rest_stays():
    q, k = torch.randn(2, 4, 5, 8), torch.randn(2, 4, 5, 8)
    cos, sin = make_angles(width=4)
    ours, expected = apply_rotary_pos_emb(q, k, cos, sin), partly_turned(q, k, cos, sin)
    assert all(torch.equal(one, other) for one, other in zip(ours, expected, strict=True))
    assert torch.equal(ours[0][..., 4:], q[..., 4:])


def test_a_quarter_turn_puts_the_second_half_first():
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 1, 4)
    angles = torch.full((1, 1, 4), math.pi / 2)
    turned = rotate(x, angles.cos(), angles.sin()).flatten()
    torch.testing.assert_close(turned, torch.tensor([-3.0, -4.0, 1.0, 2.0]))


@pytest.mark.parametrize("heads_dim", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_fused_way_gets_four_dimensions_and_one_dtype(npu_kernels, dtype, heads_dim):
    def fused(x, cos, sin):
        assert x.dtype == cos.dtype == sin.dtype
        assert cos.shape == ((2, 1, 5, 8) if heads_dim == 1 else (2, 5, 1, 8))
        first, second = x.chunk(2, -1)
        return x * cos + torch.cat((-second, first), -1) * sin

    npu_kernels.npu_rotary_mul = fused
    x, angles = torch.randn(2, 4, 5, 8).transpose(1, heads_dim).to(dtype), make_angles()
    ours, truth = (way(x, *angles, heads_dim=heads_dim) for way in (module._fused, rotate))
    assert ours.dtype == truth.dtype == torch.float32
    torch.testing.assert_close(ours, truth)


def test_what_the_kernel_does_not_take_goes_another_way():
    x, (cos, sin) = torch.randn(2, 4, 5, 8), make_angles()
    assert module._suits_npu(x, cos, sin)
    assert module._suits_npu(x, cos[:1], sin[:1])
    assert module._suits_npu(x.transpose(1, 2), cos, sin, heads_dim=2)
    assert not module._suits_npu(x, cos[..., :4], sin[..., :4])
    assert not module._suits_npu(x, cos, sin, heads_dim=2)
    assert not module._suits_npu(x[0], cos, sin)
    assert not module._suits_npu(x, cos.requires_grad_(), sin)
    assert not module._suits_npu(x.double(), cos.detach(), sin)
    assert not module._suits_npu(torch.randn(2, 4, 5, 898), *make_angles(width=898))
    assert rotate(x.to("meta"), cos.detach().to("meta"), sin.to("meta")).shape == x.shape
