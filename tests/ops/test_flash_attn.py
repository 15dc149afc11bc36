"""The stand-ins against torch's own attention with masks as the libraries define them."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from mllm_npu.device.platform import available_platforms
from mllm_npu.errors import RequestError
from mllm_npu.ops.flash_attn import (
    LowerTriangularMask,
    flash_attn_func,
    flash_attn_varlen_func,
    memory_efficient_attention,
)

WINDOWS = [(-1, -1), (3, -1), (-1, 2), (2, 1), (0, 0)]
LENGTHS = [(6, 6), (3, 9), (9, 3), (1, 5)]


def make_dense(queries, keys, heads=4, key_heads=2, rows=2):
    sizes = ((queries, heads), (keys, key_heads), (keys, key_heads))
    return [torch.randn(rows, *size, 8) for size in sizes]


def flash_mask(queries, keys, causal, window):
    """As flash-attn has it: query i sees keys [i + K - Q - left, i + K - Q + right]."""
    left, right = window[0], 0 if causal else window[1]
    places = torch.arange(queries)[:, None] + keys - queries
    distance = torch.arange(keys)[None] - places
    mask = torch.ones(queries, keys, dtype=torch.bool)
    mask = mask if left < 0 else mask & (distance >= -left)
    return mask if right < 0 else mask & (distance <= right)


def masked_truth(q, k, v, mask, scale=None):
    """In layout [B, S, H, D]; queries that see nothing give zeros."""
    q, k, v = (part.transpose(1, 2) for part in (q, k, v))
    blind = ~mask.any(-1)
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask | blind[:, None], scale=scale, enable_gqa=True
    )
    return out.masked_fill(blind[:, None], 0).transpose(1, 2)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("queries", "keys"), LENGTHS)
def test_dense_rows(with_gradients, queries, keys, causal, window):
    inputs, mask = make_dense(queries, keys), flash_mask(queries, keys, causal, window)
    ours = with_gradients(
        lambda q, k, v: flash_attn_func(q, k, v, causal=causal, window_size=window), inputs
    )
    truth = with_gradients(lambda q, k, v: masked_truth(q, k, v, mask), inputs)
    torch.testing.assert_close(ours, truth, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("bounds_k", [[0, 3, 7, 7, 20], [0, 4, 10, 12, 14]])
def test_packed_sequences_some_of_them_empty(with_gradients, bounds_k, causal, window):
    bounds_q = [0, 3, 3, 3, 9]
    inputs = [torch.randn(n, h, 8) for n, h in ((9, 4), (bounds_k[-1], 2), (bounds_k[-1], 2))]

    def truth(q, k, v):
        outs = []
        for (a, b), (c, d) in zip(pairwise(bounds_q), pairwise(bounds_k), strict=True):
            mask = flash_mask(b - a, d - c, causal, window)
            outs.append(masked_truth(q[None, a:b], k[None, c:d], v[None, c:d], mask)[0])
        return torch.cat(outs)

    def ours(q, k, v):
        return flash_attn_varlen_func(
            q, k, v, bounds_q, bounds_k, 6, 13, causal=causal, window_size=window
        )

    found, expected = with_gradients(ours, inputs), with_gradients(truth, inputs)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_the_default_scale_is_the_root_of_the_width_and_can_be_given():
    q, k, v = make_dense(4, 4)
    plain = flash_attn_func(q, k, v)
    torch.testing.assert_close(plain, flash_attn_func(q, k, v, 0.0, 8**-0.5))
    torch.testing.assert_close(plain, flash_attn_func(q * 2, k, v, softmax_scale=8**-0.5 / 2))


@pytest.mark.parametrize("kind", [list, torch.tensor, lambda x: torch.tensor(x, dtype=torch.int32)])
def test_bounds_may_be_lists_and_tensors(kind):
    q, k, v = (part.flatten(0, 1) for part in make_dense(4, 4))
    out = flash_attn_varlen_func(q, k, v, kind([0, 4, 8]), kind([0, 4, 8]), 4, 4, causal=True)
    dense = flash_attn_func(*(part.view(2, 4, -1, 8) for part in (q, k, v)), causal=True)
    torch.testing.assert_close(out, dense.flatten(0, 1))


def test_dropout_drops():
    q, k, v = make_dense(4, 4)
    assert not torch.allclose(flash_attn_func(q, k, v), flash_attn_func(q, k, v, dropout_p=0.5))


def test_no_rows_and_no_tokens_give_nothing():
    assert flash_attn_func(*make_dense(4, 4, rows=0)).shape == (0, 4, 4, 8)
    assert flash_attn_func(*make_dense(0, 4)).shape == (2, 0, 4, 8)
    q, k, v = (torch.randn(0, 2, 8) for _ in range(3))
    assert flash_attn_varlen_func(q, k, v, [0, 0], [0, 0], 0, 0).shape == (0, 2, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"softcap": 30.0}, "softcap"),
        ({"alibi_slopes": torch.ones(4)}, "alibi_slopes"),
        ({"return_attn_probs": True}, "return_attn_probs"),
        ({"deterministic": True}, "deterministic"),
        ({"window_size": (-2, 0)}, "window_size"),
        ({"window_size": (1,)}, "window_size"),
        ({"dropout_p": 1.0}, "Dropout of 1.0"),
        ({"dropout_p": -0.1}, "Dropout of -0.1"),
    ],
)
def test_what_is_not_known_is_refused(options, message):
    dense = make_dense(4, 4)
    with pytest.raises(RequestError, match=message):
        flash_attn_func(*dense, **options)
    packed = [part.flatten(0, 1) for part in dense]
    with pytest.raises(RequestError, match=message):
        flash_attn_varlen_func(*packed, [0, 4, 8], [0, 4, 8], 4, 4, **options)


@pytest.mark.parametrize(
    "change",
    [
        {"cu_seqlens_q": [0, 4, 7]},
        {"cu_seqlens_q": [1, 8]},
        {"cu_seqlens_k": [0, 5, 4, 8]},
        {"cu_seqlens_k": []},
        {"max_seqlen_q": 3},
        {"max_seqlen_k": -1},
        {"cu_seqlens_k": [0, 3, 6, 8]},
        {"block_table": torch.zeros(1)},
    ],
    ids=str,
)
def test_numbers_that_do_not_fit_are_refused(change):
    packed = [part.flatten(0, 1) for part in make_dense(4, 4)]
    bounds = {"cu_seqlens_q": [0, 4, 8], "cu_seqlens_k": [0, 4, 8]}
    arguments = bounds | {"max_seqlen_q": 4, "max_seqlen_k": 4} | change
    with pytest.raises(RequestError, match=next(iter(change))):
        flash_attn_varlen_func(*packed, **arguments)


@pytest.mark.parametrize(
    "shapes",
    [
        ((2, 4, 4, 8), (2, 4, 3, 8), (2, 4, 3, 8)),
        ((2, 4, 4, 8), (3, 4, 4, 8), (3, 4, 4, 8)),
        ((2, 4, 4, 8), (2, 4, 4, 6), (2, 4, 4, 6)),
        ((2, 4, 4, 8), (2, 5, 4, 8), (2, 4, 4, 8)),
        ((4, 4, 8), (4, 4, 8), (4, 4, 8)),
    ],
    ids=str,
)
def test_shapes_that_do_not_fit_are_refused(shapes):
    with pytest.raises(RequestError, match="do not fit"):
        flash_attn_func(*(torch.randn(shape) for shape in shapes))


@pytest.mark.parametrize(("queries", "keys"), LENGTHS)
def test_a_triangular_mask_is_aligned_at_the_first_key(with_gradients, queries, keys):
    inputs = make_dense(queries, keys, key_heads=4)
    mask = torch.ones(queries, keys, dtype=torch.bool).tril()
    ours = with_gradients(
        lambda q, k, v: memory_efficient_attention(q, k, v, LowerTriangularMask()), inputs
    )
    truth = with_gradients(lambda q, k, v: masked_truth(q, k, v, mask), inputs)
    torch.testing.assert_close(ours, truth, atol=1e-5, rtol=1e-4)


def test_a_bias_is_added_to_the_scores():
    q, k, v = make_dense(3, 5, key_heads=4)
    bias = torch.randn(2, 1, 3, 5)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * 0.2 + bias
    truth = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v)
    out = memory_efficient_attention(q, k, v, attn_bias=bias, scale=0.2)
    torch.testing.assert_close(out, truth)


def test_one_head_needs_no_dimension_and_no_bias_sees_all():
    q, k, v = (torch.randn(2, 4, 8) for _ in range(3))
    truth = F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(memory_efficient_attention(q, k, v), truth)
    assert not torch.allclose(memory_efficient_attention(q, k, v, p=0.5), truth)


def test_other_biases_and_heads_are_refused():
    q, k, v = make_dense(4, 4, key_heads=4)
    with pytest.raises(RequestError, match=r"attn_bias is of torch\.bool"):
        memory_efficient_attention(q, k, v, torch.ones(4, 4, dtype=torch.bool))
    with pytest.raises(RequestError, match="attn_bias is a str"):
        memory_efficient_attention(q, k, v, "causal")
    with pytest.raises(RequestError, match="Repeat the key heads"):
        memory_efficient_attention(*make_dense(4, 4))


@pytest.mark.parametrize("device", [platform.name for platform in available_platforms()])
def test_the_functions_run_where_the_tensors_are(device):
    inputs = make_dense(6, 6, key_heads=4)
    bounds = torch.tensor([0, 2, 12], dtype=torch.int32)

    def attend(q, k, v):
        packed = [part.flatten(0, 1) for part in (q, k, v)]
        both = bounds.to(q.device)  # copied back to the host once
        return (
            flash_attn_func(q, k, v, causal=True, window_size=(3, 0)),
            flash_attn_varlen_func(*packed, both, both, 10, 10, causal=True),
            memory_efficient_attention(q, k, v, LowerTriangularMask()),
            memory_efficient_attention(q, k, v, torch.ones(6, 6, device=q.device).tril()),
        )

    found, truth = attend(*(part.to(device) for part in inputs)), attend(*inputs)
    assert {part.device.type for part in found} == {device}
    torch.testing.assert_close([part.cpu() for part in found], list(truth), atol=1e-5, rtol=1e-4)
