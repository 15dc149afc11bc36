import pytest
import torch
import torch.nn.functional as F

from mllm_npu.ops.attention_options import BandOptions
from mllm_npu.ops.packing import pack_sequences, pair_sequences
from mllm_npu.ops.varlen_attention import (
    attend_by_lengths,
    num_blind,
    varlen_attention,
    varlen_attention_reference,
)

ENDS = (5, 6, 46, 58)
BANDS = [
    pytest.param({"left": left, "right": right}, id=f"{left} before {right} behind")
    for left, right in ((None, None), (None, 0), (3, 0), (0, None), (2, 5), (0, 0), (500, 500))
]
PAIRS = [
    pytest.param(ENDS, ENDS, id="equal"),
    pytest.param((10, 20, 30), (10, 20, 30), id="dense"),
    pytest.param((10, 20, 30), (14, 28, 42), id="dense with a past"),
    pytest.param((10, 20, 30), (4, 8, 12), id="dense with less keys"),
    pytest.param(ENDS, (7, 9, 60, 80), id="with a past"),
    pytest.param(ENDS, (3, 4, 24, 60), id="with less keys"),
    pytest.param((0, 4, 4, 9), (3, 5, 5, 5), id="empty"),
    pytest.param((4, 8), (0, 0), id="no keys"),
]


def make_inputs(ends_q, ends_k, value_width=8):
    return [
        torch.randn(ends_q[-1], 4, 8),
        torch.randn(ends_k[-1], 2, 8),
        torch.randn(ends_k[-1], 2, value_width),
    ]


@pytest.mark.parametrize("band", BANDS)
@pytest.mark.parametrize(("ends_q", "ends_k"), PAIRS)
def test_groups_of_equal_lengths_are_the_reference(with_gradients, ends_q, ends_k, band):
    inputs = make_inputs(ends_q, ends_k)
    packing = pair_sequences(ends_q, ends_k, "cpu")
    options = BandOptions(scale=0.3, **band)
    ours = with_gradients(lambda *parts: attend_by_lengths(*parts, packing, options), inputs)
    truth = with_gradients(
        lambda *parts: varlen_attention_reference(*parts, ends_q, ends_k, scale=0.3, **band), inputs
    )
    shapes = [ours[0].shape, *(part.shape for part in inputs)]
    for one, other, shape in zip(ours, truth, shapes, strict=True):
        # What no query sees has no gradient.
        one, other = (torch.zeros(shape) if part is None else part for part in (one, other))
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("queries", "keys"), [(6, 6), (3, 8)])
def test_the_reference_is_torchs_own_attention_with_a_mask_aligned_at_the_end(queries, keys):
    inputs = make_inputs((queries,), (keys,))
    ours = varlen_attention_reference(*inputs, (queries,), (keys,), left=2, right=1, scale=0.3)
    distance = torch.arange(keys)[None] - (torch.arange(queries)[:, None] + keys - queries)
    q, k, v = (part.transpose(0, 1)[None] for part in inputs)
    truth = F.scaled_dot_product_attention(
        q, k, v, attn_mask=(distance >= -2) & (distance <= 1), scale=0.3, enable_gqa=True
    )
    torch.testing.assert_close(ours, truth[0].transpose(0, 1))


def test_queries_that_see_nothing_give_zeros_and_come_first():
    assert [num_blind(5, 3, right) for right in (0, 1, 2, 9, None)] == [2, 1, 0, 0, 0]
    assert num_blind(5, 0, None) == 5
    assert num_blind(3, 5, 0) == 0
    inputs = make_inputs((5,), (3,))
    out = varlen_attention(*inputs, (5,), (3,), left=None, right=0, scale=1.0)
    assert torch.all(out[:2] == 0)
    assert torch.all(out[2:].abs().sum((1, 2)) > 0)


def test_no_queries_give_no_result_and_still_a_graph():
    inputs = [part.requires_grad_() for part in make_inputs((0, 0), (3, 5), value_width=6)]
    out = varlen_attention(*inputs, (0, 0), (3, 5), left=None, right=0, scale=1.0)
    assert out.shape == (0, 4, 6)
    out.sum().backward()


def test_narrow_values_and_meta_tensors():
    inputs = make_inputs(ENDS, ENDS, value_width=6)
    options = {"left": None, "right": 0, "scale": 0.3}
    ours = varlen_attention(*inputs, ENDS, ENDS, **options)
    truth = varlen_attention_reference(*inputs, ENDS, ENDS, **options)
    torch.testing.assert_close(ours, truth)
    hollow = [part.to("meta") for part in inputs]
    assert varlen_attention(*hollow, ENDS, ENDS, **options).shape == (58, 4, 6)


def test_dropout_changes_the_result():
    inputs, packing = make_inputs(ENDS, ENDS), pack_sequences(ENDS, "cpu")
    options = {"left": None, "right": None, "scale": 0.3}
    ends = packing.sequence_ends
    quiet = varlen_attention(*inputs, ends, ends, **options)
    assert not torch.allclose(quiet, varlen_attention(*inputs, ends, ends, **options, dropout=0.5))
