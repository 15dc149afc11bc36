import pytest
import torch

from mllm_npu.ops.attention import packed_attention_reference
from mllm_npu.ops.causal_part import IN_BLOCKS, Attended, backward_part, forward_part
from mllm_npu.ops.packing import pack_sequences

ENDS = (3, 300, 301, 340)


def make_inputs(key_heads=2, dtype=torch.float32):
    sizes = (4, key_heads, key_heads)
    return [torch.randn(ENDS[-1], heads, 8).to(dtype) for heads in sizes]


def attended(inputs, out, lse):
    q, k, v = inputs
    return Attended(q_THE=q, k_TJE=k, v_TJE=v, out_THE=out, lse_TH=lse)


@pytest.mark.parametrize("key_heads", [4, 2, 1])
@pytest.mark.parametrize("ends", [ENDS, (340,), (170, 340)])
def test_alone_a_part_is_causal_attention_with_its_sums(with_gradients, key_heads, ends):
    inputs, packing = make_inputs(key_heads), pack_sequences(ends, "cpu")
    weights = torch.randn(340, 4, 8)
    truth = with_gradients(
        lambda *parts: packed_attention_reference(*parts, ends, scale=0.3), inputs, weights
    )
    out, lse = forward_part(*inputs, packing, 0.3)
    grads = backward_part(weights, attended(inputs, out, lse), packing, 0.3)
    torch.testing.assert_close([out, *grads], truth, atol=1e-5, rtol=1e-4)
    q, k = (part[: ends[0], 0] for part in inputs[:2])
    scores = (q @ k.T * 0.3).masked_fill(torch.ones(ends[0], ends[0]).triu(1).bool(), -torch.inf)
    torch.testing.assert_close(lse[: ends[0], 0], scores.logsumexp(-1))


def test_narrow_inputs_are_computed_in_float32_and_get_narrow_gradients(error_of):
    inputs, packing = make_inputs(dtype=torch.bfloat16), pack_sequences(ENDS, "cpu")
    out, lse = forward_part(*inputs, packing, 0.3)
    truth = packed_attention_reference(*(part.float() for part in inputs), ENDS, scale=0.3)
    assert out.dtype == lse.dtype == torch.float32
    assert error_of(out, truth) < 1e-5
    grads = backward_part(torch.ones_like(out), attended(inputs, out, lse), packing, 0.3)
    assert [grad.dtype for grad in grads] == [torch.bfloat16] * 3
    assert [grad.shape for grad in grads] == [part.shape for part in inputs]


def test_a_larger_sum_of_the_whole_makes_the_parts_share_smaller():
    """Gradients of the values are the shares times the gradient: halved when the sum doubles."""
    inputs, packing = make_inputs(), pack_sequences(ENDS, "cpu")
    out, lse = forward_part(*inputs, packing, 0.3)
    grad = torch.randn(340, 4, 8)
    alone = backward_part(grad, attended(inputs, out, lse), packing, 0.3)[2]
    twice = attended(inputs, out, lse + torch.tensor(2.0).log())
    half = backward_part(grad, twice, packing, 0.3)[2]
    torch.testing.assert_close(half, alone / 2, atol=1e-5, rtol=1e-4)


def test_it_is_the_way_of_every_device_and_needs_no_memory():
    assert IN_BLOCKS.device is None
    assert IN_BLOCKS.suits is None
    hollow = [part.to("meta") for part in make_inputs()]
    out, lse = IN_BLOCKS.forward(*hollow, pack_sequences(ENDS, "meta"), 1.0)
    assert out.shape == (340, 4, 8)
    assert lse.shape == (340, 4)
