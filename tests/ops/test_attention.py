import math

import pytest
import torch

from mllm_npu.errors import RequestError
from mllm_npu.ops.attention import (
    NEVER_VISIBLE,
    attend,
    band_mask,
    packed_attention,
    packed_attention_reference,
    visible_keys,
)
from mllm_npu.ops.packing import pack_sequences

ENDS = (5, 6, 46, 58)
OPTIONS = [
    pytest.param({}, id="plain"),
    pytest.param({"window": 4}, id="window"),
    pytest.param({"softcap": 2.0}, id="softcap"),
    pytest.param({"window": 7, "softcap": 2.0}, id="both"),
]


def make_inputs(heads=4, key_heads=2, width=8):
    sizes = ((heads, width), (key_heads, width), (key_heads, width))
    return [torch.randn(ENDS[-1], *size, requires_grad=True) for size in sizes]


def with_gradients(way, inputs, weights):
    copies = [part.detach().requires_grad_() for part in inputs]
    out = way(*copies)
    (out * weights).sum().backward()
    return [out, *(part.grad for part in copies)]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("key_heads", [4, 2, 1])
def test_packed_attention_is_the_reference_forwards_and_backwards(options, key_heads):
    inputs = make_inputs(key_heads=key_heads)
    weights = torch.randn(ENDS[-1], 4, 8)
    packing = pack_sequences(ENDS, "cpu")
    ours = with_gradients(
        lambda q, k, v: packed_attention(q, k, v, packing, scale=0.3, **options), inputs, weights
    )
    truth = with_gradients(
        lambda q, k, v: packed_attention_reference(q, k, v, ENDS, scale=0.3, **options),
        inputs,
        weights,
    )
    for one, other in zip(ours, truth, strict=True):
        torch.testing.assert_close(one, other, atol=2e-6, rtol=1e-5)


def test_the_reference_is_attention_written_out_for_one_token_pair():
    q = k = torch.tensor([[[1.0]], [[2.0]]])
    v = torch.tensor([[[10.0]], [[20.0]]])
    out = packed_attention_reference(q, k, v, (2,), scale=1.0)
    share = math.exp(4) / (math.exp(2) + math.exp(4))
    assert out[0].item() == 10.0
    assert out[1].item() == pytest.approx(10 * (1 - share) + 20 * share)


def test_sequences_do_not_see_each_other():
    q, k, v = make_inputs()
    packing = pack_sequences(ENDS, "cpu")
    before = packed_attention(q, k, v, packing, scale=1.0)
    changed = v.detach().clone()
    changed[: ENDS[1]] += 1
    after = packed_attention(q, k, changed, packing, scale=1.0)
    assert torch.equal(before[ENDS[1] :], after[ENDS[1] :])
    assert not torch.equal(before[: ENDS[1]], after[: ENDS[1]])


def test_a_band_is_the_token_itself_and_those_before_it():
    assert band_mask(4, 2, torch.device("cpu")).int().tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [0, 1, 1, 0],
        [0, 0, 1, 1],
    ]


def test_new_tokens_see_keys_up_to_themselves_and_never_padding():
    keys = torch.tensor([[0, 1, NEVER_VISIBLE, 2, 3]])
    queries = torch.tensor([[2, 3]])
    assert visible_keys(queries, keys, None)[0, 0].int().tolist() == [
        [1, 1, 0, 1, 0],
        [1, 1, 0, 1, 1],
    ]
    assert visible_keys(queries, keys, 2)[0, 0].int().tolist() == [
        [0, 1, 0, 1, 0],
        [0, 0, 0, 1, 1],
    ]


@pytest.mark.parametrize("softcap", [None, 5.0])
def test_a_mask_means_the_same_with_and_without_a_soft_cap(softcap):
    q, k, v = torch.randn(2, 4, 3, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[:, 4] = False
    masked = attend(q, k, v, mask=mask, causal=False, scale=0.1, softcap=softcap)
    cut = attend(q, k[:, :, :4], v[:, :, :4], mask=None, causal=False, scale=0.1, softcap=softcap)
    torch.testing.assert_close(masked, cut)


def test_dropout_of_everything_but_nothing_changes_the_softcapped_way_only_when_asked():
    q, k, v = torch.randn(1, 2, 4, 8), torch.randn(1, 2, 4, 8), torch.randn(1, 2, 4, 8)
    quiet = attend(q, k, v, mask=None, causal=True, scale=1.0, softcap=3.0)
    dropped = attend(q, k, v, mask=None, causal=True, scale=1.0, softcap=3.0, dropout=0.5)
    assert torch.isfinite(dropped).all()
    assert not torch.equal(quiet, dropped)


def test_a_pack_of_other_tokens_is_refused():
    with pytest.raises(RequestError, match=r"58 tokens in a pack of 57"):
        packed_attention(*make_inputs(), pack_sequences((57,), "cpu"), scale=1.0)
