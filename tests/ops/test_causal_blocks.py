import pytest
import torch

from mllm_npu.ops.attention import attend, packed_attention_reference
from mllm_npu.ops.causal_blocks import (
    LONGEST_ROW,
    attend_in_blocks,
    in_compute_dtype,
    suits_blocks,
)

SCALE = 0.3


def make_rows(length, *, value_width=8, dtype=torch.float32):
    widths = (8, 8, value_width)
    return [torch.randn(2, 3, length, width).to(dtype) for width in widths]


def reference(q, k, v):
    """Row by row through the slow truth."""
    rows = [part.transpose(1, 2) for part in (q, k, v)]
    outs = [
        packed_attention_reference(*row, (q.shape[2],), scale=SCALE)
        for row in zip(*rows, strict=True)
    ]
    return torch.stack(outs).transpose(1, 2)


def with_gradients(way, rows, weights):
    copies = [part.detach().clone().requires_grad_() for part in rows]
    out = way(*copies)
    (out.to(weights.dtype) * weights).sum().backward()
    return [out, *(part.grad for part in copies)]


@pytest.mark.parametrize("length", [1, 5, 95, 96, 97, 300])
@pytest.mark.parametrize("value_width", [8, 5])
def test_blocks_are_the_reference_forwards_and_backwards(length, value_width):
    rows = make_rows(length, value_width=value_width)
    weights = torch.randn(2, 3, length, value_width)
    ours = with_gradients(lambda *parts: attend_in_blocks(*parts, scale=SCALE), rows, weights)
    truth = with_gradients(reference, rows, weights)
    for one, other in zip(ours, truth, strict=True):
        torch.testing.assert_close(one, other, atol=5e-6, rtol=1e-5)


def test_narrow_rows_are_as_near_to_the_truth_as_the_fused_kernel_brings_them():
    rows = make_rows(300, dtype=torch.bfloat16)
    weights = torch.randn(2, 3, 300, 8, dtype=torch.float64)
    truth = with_gradients(reference, [part.double() for part in rows], weights)
    ours = with_gradients(lambda *parts: attend_in_blocks(*parts, scale=SCALE), rows, weights)
    fused = with_gradients(
        lambda *parts: torch.nn.functional.scaled_dot_product_attention(
            *parts, is_causal=True, scale=SCALE
        ),
        rows,
        weights,
    )
    for one, other, exact in zip(ours, fused, truth, strict=True):
        error, usual = ((part.double() - exact).norm() / exact.norm() for part in (one, other))
        assert one.dtype == torch.bfloat16
        assert error < 0.01
        assert error < 3 * usual


def test_a_later_token_is_not_seen_across_blocks():
    q, k, v = make_rows(260)
    before = attend_in_blocks(q, k, v, scale=SCALE)
    changed = v.clone()
    changed[:, :, 200:] += 1
    after = attend_in_blocks(q, k, changed, scale=SCALE)
    assert torch.equal(before[:, :, :200], after[:, :, :200])
    assert not torch.equal(before[:, :, 200:], after[:, :, 200:])


@pytest.mark.parametrize("length", [40, 200])
def test_shared_key_heads_get_the_sum_of_their_gradients(length):
    q, k, v = (
        torch.randn(2, 6, length, 8),
        torch.randn(2, 2, length, 8),
        torch.randn(2, 2, length, 8),
    )
    weights = torch.randn(2, 6, length, 8)
    options = {"mask": None, "causal": True, "scale": SCALE}
    ours = with_gradients(lambda *parts: attend(*parts, **options), (q, k, v), weights)
    truth = with_gradients(
        lambda q, k, v: reference(q, k.repeat_interleave(3, 1), v.repeat_interleave(3, 1)),
        (q, k, v),
        weights,
    )
    for one, other in zip(ours, truth, strict=True):
        torch.testing.assert_close(one, other, atol=5e-6, rtol=1e-5)


def test_under_autocast_it_computes_narrow_and_gives_wide_gradients():
    rows = [part.requires_grad_() for part in make_rows(140)]
    with torch.autocast("cpu", torch.bfloat16):
        out = attend_in_blocks(*rows, scale=SCALE)
        assert in_compute_dtype(rows[0]).dtype == torch.bfloat16
    out.float().sum().backward()
    assert out.dtype == torch.bfloat16
    assert all(part.grad.dtype == torch.float32 for part in rows)
    torch.testing.assert_close(out.float(), reference(*rows), atol=0.03, rtol=0.03)


def test_without_autocast_and_on_devices_without_it_nothing_is_narrowed():
    tensor = torch.randn(2)
    assert in_compute_dtype(tensor) is tensor
    hollow = torch.randn(2, device="meta")
    assert in_compute_dtype(hollow) is hollow


def test_without_gradients_nothing_is_kept():
    rows = make_rows(140)
    assert not attend_in_blocks(*rows, scale=SCALE).requires_grad
    with torch.inference_mode():
        torch.testing.assert_close(attend_in_blocks(*rows, scale=SCALE), reference(*rows))


def test_long_rows_and_other_devices_go_to_the_fused_kernel():
    assert suits_blocks(torch.empty(1, 1, LONGEST_ROW, 8))
    assert not suits_blocks(torch.empty(1, 1, LONGEST_ROW + 1, 8))
    assert not suits_blocks(torch.empty(1, 1, 4, 8, device="meta"))
    assert not suits_blocks(torch.empty(1, 1, 0, 8))


def test_dropout_goes_to_the_fused_kernel():
    rows = make_rows(20)
    options = {"mask": None, "causal": True, "scale": SCALE}
    quiet, dropped = attend(*rows, **options), attend(*rows, **options, dropout=0.5)
    assert not torch.allclose(quiet, dropped)
