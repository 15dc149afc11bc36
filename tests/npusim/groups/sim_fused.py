"""The fused operators give what plain mathematics gives, forward and backward."""

import math

import pytest
import torch
import torch.nn.functional as F
import torch_npu
from torch.utils.checkpoint import checkpoint

LAYOUTS = ("BNSD", "BSND", "BSH", "SBH")
CLOSE = {"atol": 2e-6, "rtol": 2e-6}
GRADS_CLOSE = {"atol": 1e-5, "rtol": 1e-5}
MODES = ("full", "mask", "left causal", "right causal", "band", "banded mask")


def compressed():
    return torch.ones(2048, 2048, dtype=torch.bool, device="npu").triu_(1)


def seen_and_settings(mode, num_queries, num_keys):
    """What a query sees, on the host, and how the operator is told so."""
    shift = num_keys - num_queries
    distance = torch.arange(num_keys) - torch.arange(num_queries)[:, None]
    small = {"atten_mask": compressed()}
    if mode == "full":
        return torch.ones(num_queries, num_keys, dtype=torch.bool), {}
    if mode == "left causal":
        return distance <= 0, {"sparse_mode": 2, **small}
    if mode == "right causal":
        return distance <= shift, {"sparse_mode": 3, **small}
    if mode == "band":
        seen = (distance >= shift - 5) & (distance <= shift + 2)
        return seen, {"sparse_mode": 4, "pre_tockens": 5, "next_tockens": 2, **small}
    seen = torch.rand(num_queries, num_keys, generator=torch.Generator().manual_seed(9)) < 0.6
    seen[:, 0] = True
    if mode == "mask":
        return seen, {"sparse_mode": 1, "atten_mask": ~seen.to("npu")}
    seen.fill_diagonal_(True)
    settings = {"pre_tockens": 7, "next_tockens": 3, "atten_mask": (~seen).to("npu").byte()}
    return seen & (distance >= -7) & (distance <= 3), settings


def reference(q, k, v, seen, scale):
    """Attention of [B, N, S, E] with statistics, in float64."""
    k, v = (part.repeat_interleave(q.shape[1] // k.shape[1], 1) for part in (k, v))
    scores = (q.double() @ k.double().transpose(2, 3) * scale).masked_fill(~seen, -math.inf)
    top = scores.amax(-1, keepdim=True)
    weights = (scores - top).exp()
    total = weights.sum(-1, keepdim=True)
    return (weights / total @ v.double()), top, total


def in_layout(rows_BNSE, layout):
    """[B, N, S, E] as the layout wants it."""
    if layout == "BNSD":
        return rows_BNSE
    rows_BSNE = rows_BNSE.transpose(1, 2)
    if layout == "BSND":
        return rows_BSNE
    return rows_BSNE.flatten(2) if layout == "BSH" else rows_BSNE.flatten(2).transpose(0, 1)


def make_parts(heads=4, key_heads=2, num_queries=20, num_keys=24, width=16, value_width=16):
    sizes = ((heads, num_queries, width), (key_heads, num_keys, width))
    shapes = (*sizes, (key_heads, num_keys, value_width))
    return [torch.randn(2, *shape, requires_grad=True) for shape in shapes]


def on_device(parts, layout):
    return [in_layout(p.detach(), layout).contiguous().to("npu").requires_grad_() for p in parts]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mode", MODES)
def test_attention_in_every_layout_and_mode(layout, mode):
    parts = make_parts()
    seen, settings = seen_and_settings(mode, 20, 24)
    truth, top, total = reference(*parts, seen, 0.3)
    ours = on_device(parts, layout)
    out, maximum, sums, *_ = torch_npu.npu_fusion_attention(*ours, 4, layout, scale=0.3, **settings)
    torch.testing.assert_close(out.cpu(), in_layout(truth, layout).float(), **CLOSE)
    assert maximum.shape == sums.shape == (2, 4, 20, 8)
    torch.testing.assert_close(maximum.cpu(), top.expand(2, 4, 20, 8).float(), **CLOSE)
    torch.testing.assert_close(sums.cpu(), total.expand(2, 4, 20, 8).float(), **GRADS_CLOSE)
    weights = torch.randn_like(truth)
    (truth * weights).sum().backward()
    (out * in_layout(weights.float(), layout).to("npu")).sum().backward()
    for part, own in zip(parts, ours, strict=True):
        torch.testing.assert_close(own.grad.cpu(), in_layout(part.grad, layout), **GRADS_CLOSE)


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (2, 4)])
def test_masks_per_row_and_per_head(shape):
    parts = make_parts(num_queries=5, num_keys=5)
    seen = torch.rand(*shape, 5, 5) < 0.5
    seen[..., 0] = True
    truth = reference(*parts, seen, 0.3)[0]
    ours = on_device(parts, "BNSD")
    out = torch_npu.npu_fusion_attention(
        *ours, 4, "BNSD", scale=0.3, sparse_mode=1, atten_mask=~seen.to("npu")
    )[0]
    torch.testing.assert_close(out.cpu(), truth.float(), **CLOSE)


def test_attention_with_narrow_values_and_many_blocks():
    parts = make_parts(heads=8, key_heads=1, num_queries=700, num_keys=800, value_width=8)
    seen, settings = seen_and_settings("right causal", 700, 800)
    truth = reference(*parts, seen, 0.3)[0]
    ours = on_device(parts, "BNSD")
    out = torch_npu.npu_fusion_attention(*ours, 8, "BNSD", scale=0.3, **settings)[0]
    torch.testing.assert_close(out.cpu(), truth.float(), **CLOSE)
    truth.square().sum().backward()
    out.square().sum().backward()
    for part, own in zip(parts, ours, strict=True):
        torch.testing.assert_close(own.grad.cpu(), part.grad, atol=1e-4, rtol=1e-4)


ENDS = {
    "plain": ([5, 6, 46, 58], [5, 6, 46, 58]),
    "empty sequence": ([5, 5, 46, 58], [5, 5, 46, 58]),
    "trailing zeros": ([5, 6, 46, 58, 0, 0], [5, 6, 46, 58, 0, 0]),
    "more keys": ([5, 6, 46, 58], [9, 30, 70, 90]),
}


@pytest.mark.parametrize("case", ENDS)
@pytest.mark.parametrize("mode", ["full", "right causal", "band", "mask"])
def test_attention_of_packs(case, mode):
    ends, key_ends = ENDS[case]
    sizes = ((max(ends), 4), (max(key_ends), 2), (max(key_ends), 2))
    hosts = [torch.randn(*size, 16, requires_grad=True) for size in sizes]
    ours = [host.detach().to("npu").requires_grad_() for host in hosts]
    settings = seen_and_settings(mode, 64, 64)[1]
    whole_mask = settings.get("atten_mask") if mode == "mask" else None
    out, maximum, total, *_ = torch_npu.npu_fusion_attention(
        *ours, 4, "TND", scale=0.3, actual_seq_qlen=ends, actual_seq_kvlen=key_ends, **settings
    )
    assert maximum.shape == total.shape == (58, 4, 8)
    truth, start, key_start = [], 0, 0
    for end, key_end in zip(ends, key_ends, strict=True):
        if end > start:
            q = hosts[0][start:end].transpose(0, 1)[None]
            k, v = (part[key_start:key_end].transpose(0, 1)[None] for part in hosts[1:])
            seen = seen_and_settings(mode, end - start, key_end - key_start)[0]
            if whole_mask is not None:
                seen = ~whole_mask.cpu()[: end - start, : key_end - key_start]
            truth.append(reference(q, k, v, seen, 0.3)[0][0].transpose(0, 1))
            start, key_start = end, key_end
    truth = torch.cat(truth)
    torch.testing.assert_close(out.cpu(), truth.float(), **CLOSE)
    truth.square().sum().backward()
    out.square().sum().backward()
    for host, own in zip(hosts, ours, strict=True):
        torch.testing.assert_close(own.grad.cpu(), host.grad, **GRADS_CLOSE)


def test_queries_that_see_nothing_give_zero_and_weigh_nothing():
    parts = make_parts(num_queries=6, num_keys=4)
    settings = seen_and_settings("right causal", 6, 4)[1]
    ours = on_device(parts, "BNSD")
    out, top, total, *_ = torch_npu.npu_fusion_attention(*ours, 4, "BNSD", **settings)
    assert not out[:, :, :2].any()
    lse = top[:, :, :2, 0] + total[:, :, :2, 0].log()
    assert not lse.exp().any()
    out.sum().backward()
    assert not ours[0].grad[:, :, :2].any()
    assert all(part.grad.isfinite().all() for part in ours)


def test_partial_attentions_merge_to_the_whole_with_its_gradient():
    parts = make_parts(num_queries=12, num_keys=24)
    truth = reference(*parts, torch.ones(12, 24, dtype=torch.bool), 0.3)[0]
    weights = torch.randn_like(truth)
    (truth * weights).sum().backward()
    query, key, value = (part.detach().to("npu") for part in parts)
    pieces = [(key[:, :, s], value[:, :, s]) for s in (slice(0, 10), slice(10, 24))]
    attended = [torch_npu.npu_fusion_attention(query, *p, 4, "BNSD", scale=0.3) for p in pieces]
    top = torch.maximum(attended[0][1], attended[1][1])
    total = sum((one[1] - top).exp() * one[2] for one in attended)
    merged = sum(one[0] * ((one[1] - top).exp() * one[2] / total)[..., :1] for one in attended)
    torch.testing.assert_close(merged.cpu(), truth.float(), **CLOSE)
    back = [
        torch_npu.npu_fusion_attention_grad(
            query,
            *piece,
            weights.float().to("npu"),
            4,
            "BNSD",
            softmax_max=top,
            softmax_sum=total,
            attention_in=merged,
            scale_value=0.3,
        )
        for piece in pieces
    ]
    torch.testing.assert_close((back[0][0] + back[1][0]).cpu(), parts[0].grad, **GRADS_CLOSE)
    for index in (1, 2):
        joined = torch.cat([one[index] for one in back], 2)
        torch.testing.assert_close(joined.cpu(), parts[index].grad, **GRADS_CLOSE)


def test_the_gradient_operator_needs_the_statistics():
    query = torch.randn(1, 2, 4, 8, device="npu")
    with pytest.raises(RuntimeError, match="needs attention_in, softmax_max, softmax_sum"):
        torch_npu.npu_fusion_attention_grad(query, query, query, query, 2, "BNSD")


def test_dropout_is_reproducible_and_has_its_gradient():
    parts = [torch.randn(1, 2, 40, 8, device="npu") for _ in range(2)]
    value = torch.eye(40, device="npu").expand(1, 2, 40, 40).clone().requires_grad_()
    padded = [F.pad(part, (0, 32)) for part in parts]

    def attend():
        return torch_npu.npu_fusion_attention(*padded, value, 2, "BNSD", keep_prob=0.75)

    torch.npu.manual_seed(3)
    out, *_, seed, _, num_drawn = attend()
    torch.npu.manual_seed(3)
    assert torch.equal(out, attend()[0])
    assert not torch.equal(out, attend()[0])
    assert seed != 0
    assert num_drawn == 2 * 40 * 40
    assert 0.7 < (out != 0).float().mean().item() < 0.8
    torch.testing.assert_close(out.sum(-1).mean().item(), 1.0, atol=0.1, rtol=0)
    weights = torch.randn_like(out)
    (grad,) = torch.autograd.grad(out, value, weights)
    torch.testing.assert_close(grad, out.detach().transpose(2, 3) @ weights, **GRADS_CLOSE)
    torch.npu.manual_seed(4)
    recomputed = checkpoint(attend, use_reentrant=False)[0]
    (grad,) = torch.autograd.grad(recomputed, value, weights)
    truth = recomputed.detach().transpose(2, 3) @ weights
    torch.testing.assert_close(grad, truth, **GRADS_CLOSE)


@pytest.mark.parametrize(
    ("dtype", "gamma_dtype"),
    [
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.bfloat16),
        (torch.float16, torch.float32),
    ],
)
def test_rms_norm(dtype, gamma_dtype):
    host, gamma = torch.randn(3, 5, 16).to(dtype), torch.randn(16).to(gamma_dtype)
    hosts = [host.double().requires_grad_(), gamma.double().requires_grad_()]
    ours = [part.to("npu").requires_grad_() for part in (host, gamma)]
    factor = torch.rsqrt(hosts[0].square().mean(-1, keepdim=True) + 1e-5)
    truth = hosts[0] * factor * hosts[1]
    out, rstd = torch_npu.npu_rms_norm(*ours, 1e-5)
    assert (out.dtype, rstd.dtype, rstd.shape) == (dtype, torch.float32, (3, 5, 1))
    torch.testing.assert_close(rstd.cpu(), factor.float().detach(), **CLOSE)
    torch.testing.assert_close(out.cpu(), truth.to(dtype))
    truth.square().sum().backward()
    out.square().sum().backward()
    close = GRADS_CLOSE if dtype == torch.float32 else {"atol": 0.5, "rtol": 0.05}
    for host, own in zip(hosts, ours, strict=True):
        torch.testing.assert_close(own.grad.cpu().double(), host.grad, **close)


@pytest.mark.parametrize("mode", ["half", "interleave"])
@pytest.mark.parametrize("shape", [(1, 6, 1, 8), (2, 6, 1, 8), (2, 1, 1, 8), (6, 1, 8)])
def test_rotary_embedding(mode, shape):
    size = (2, 6, 3, 8) if len(shape) == 4 else (6, 3, 8)
    hosts = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in (size, shape, shape)]
    ours = [host.detach().float().to("npu").requires_grad_() for host in hosts]
    values, cos, sin = hosts
    if mode == "half":
        turned = torch.cat((-values[..., 4:], values[..., :4]), -1)
    else:
        turned = torch.stack((-values[..., 1::2], values[..., ::2]), -1).flatten(-2)
    truth = values * cos + turned * sin
    out = torch_npu.npu_rotary_mul(*ours, mode)
    torch.testing.assert_close(out.cpu().double(), truth, **CLOSE)
    truth.square().sum().backward()
    out.square().sum().backward()
    for host, own in zip(hosts, ours, strict=True):
        torch.testing.assert_close(own.grad.cpu().double(), host.grad, **GRADS_CLOSE)


@pytest.mark.parametrize("dim", [-1, 1])
def test_swiglu(dim):
    host = torch.randn(3, 8, 6, dtype=torch.float64, requires_grad=True)
    own = host.detach().float().to("npu").requires_grad_()
    first, second = host.chunk(2, dim)
    truth = F.silu(first) * second
    out = torch_npu.npu_swiglu(own, dim)
    torch.testing.assert_close(out.cpu().double(), truth, **CLOSE)
    truth.square().sum().backward()
    out.square().sum().backward()
    torch.testing.assert_close(own.grad.cpu().double(), host.grad, **GRADS_CLOSE)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu(approximate):
    host = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)
    own = host.detach().float().to("npu").requires_grad_()
    truth = F.gelu(host, approximate=approximate)
    out = torch_npu.npu_gelu(own, approximate=approximate)
    torch.testing.assert_close(out.cpu().double(), truth, **CLOSE)
    truth.square().sum().backward()
    out.square().sum().backward()
    torch.testing.assert_close(own.grad.cpu().double(), host.grad, **GRADS_CLOSE)
    assert torch_npu.npu_gelu(own.bfloat16()).dtype is torch.bfloat16
    with pytest.raises(RuntimeError, match="approximate must be none or tanh"):
        torch_npu.npu_gelu(own, approximate="erf")


@pytest.mark.parametrize("as_tensor", [True, False])
def test_grouped_products(as_tensor):
    rows, weights = torch.randn(9, 4), torch.randn(3, 4, 5)
    counts, ends = [2, 0, 7], [2, 2, 9]
    truth = torch.cat([rows[:2] @ weights[0], rows[2:] @ weights[2]])
    for numbers, kind in ((counts, 1), (ends, 0)):
        groups = torch.tensor(numbers).to("npu") if as_tensor else numbers
        settings = {"group_list": groups, "group_list_type": kind}
        (out,) = torch_npu.npu_grouped_matmul(
            [rows.to("npu")], [weights.to("npu")], split_item=2, group_type=0, **settings
        )
        torch.testing.assert_close(out.cpu(), truth, **CLOSE)
        (grad,) = torch_npu.npu_grouped_matmul(
            [rows.to("npu").t()], [out], split_item=3, group_type=2, **settings
        )
        torch.testing.assert_close(grad[2].cpu(), rows[2:].t() @ truth[2:], **GRADS_CLOSE)
        assert not grad[1].any()


def test_tensors_without_values_have_the_shapes():
    with torch.device("meta"):
        query, keys = torch.empty(10, 4, 16, requires_grad=True), torch.empty(10, 2, 16)
        small = torch.empty(2048, 2048, dtype=torch.bool)
        out, top, *_ = torch_npu.npu_fusion_attention(
            query,
            keys,
            keys,
            4,
            "TND",
            sparse_mode=3,
            atten_mask=small,
            actual_seq_qlen=[4, 10],
            actual_seq_kvlen=[4, 10],
        )
        assert (out.shape, top.shape, out.device.type) == ((10, 4, 16), (10, 4, 8), "meta")
        gamma = torch.empty(16, requires_grad=True)
        normed = torch_npu.npu_rms_norm(out, gamma)[0]
        table = torch.empty(10, 1, 16)
        turned = torch_npu.npu_rotary_mul(normed, table, table)
        gated = torch_npu.npu_swiglu(turned)
        assert gated.shape == (10, 4, 8)
        gated.sum().backward()
        assert query.grad.shape == query.shape
        assert gamma.grad.shape == (16,)


def test_the_operators_are_the_dispatchers():
    parts = [torch.randn(1, 2, 4, 8, device="npu") for _ in range(3)]
    by_name = torch.ops.npu.npu_fusion_attention(*parts, 2, "BNSD")
    assert torch.equal(by_name[0], torch_npu.npu_fusion_attention(*parts, 2, "BNSD")[0])
    assert torch_npu.simulation.stats().operators["npu::npu_fusion_attention"] == 2
    schema = str(torch.ops.npu.npu_fusion_attention_grad.default._schema)
    assert "Tensor? softmax_max=None, Tensor? softmax_sum=None" in schema
    assert schema.startswith("npu::npu_fusion_attention_grad(Tensor query, Tensor key")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_numbers_are_rounded_once(dtype):
    parts = [part.detach().to(dtype) for part in make_parts()]
    truth = reference(*parts, torch.ones(20, 24, dtype=torch.bool), 0.3)[0]
    ours = on_device(parts, "BNSD")
    with torch.autocast("npu", dtype=torch.bfloat16):
        out, top, *_ = torch_npu.npu_fusion_attention(*ours, 4, "BNSD", scale=0.3)
    assert (out.dtype, top.dtype) == (dtype, torch.float32)
    assert (out.cpu().double() - truth).abs().max() <= torch.finfo(dtype).eps * truth.abs().max()
    out.sum().backward()
    assert ours[0].grad.dtype is dtype
