"""Attend by the fused kernel of the NPU: packs as they are, dense rows, parts of an attention.

The kernel takes ends of sequences from the host, shares key heads itself, and asks for one small
mask wherever a query does not see all keys: without it, it ignores every other limit in silence.

Shape letters: T queries of a pack, U keys of a pack, H query heads, J key heads, E head width, B
rows of a batch, Q queries and K keys of a row.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mllm_npu.ops.attention_options import BandOptions, PackOptions, RowOptions, ScoreOptions
from mllm_npu.ops.autocast import compute_dtype, in_compute_dtype
from mllm_npu.ops.causal_part import Attended, CausalPart, Gradients
from mllm_npu.ops.npu_extension import NPU, causal_mask, fused_ops, takes_dtype
from mllm_npu.ops.packing import Packing, PairPacking

_MOST_HEADS = 256
_MOST_SEQUENCES = 2048
_WIDEST = 768
_LONGEST = 2**20
_UNLIMITED = 2**31 - 1
_STATISTICS = 8
"""How often the kernel repeats each statistic of a query."""
_FULL_MASK, _CAUSAL, _BAND = 1, 3, 4
"""Its names for what a query sees; the last two are aligned at the last query and key."""


def suits_pack(
    q_THE: Tensor, k_TJE: Tensor, v_TJE: Tensor, packing: Packing, options: ScoreOptions
) -> bool:
    """Whether the kernel takes what `attend_pack` is given."""
    few = len(packing.sequence_ends) <= _MOST_SEQUENCES and packing.longest <= _LONGEST
    return few and _takes(q_THE, k_TJE, v_TJE, options)


def attend_pack(
    q_THE: Tensor, k_TJE: Tensor, v_TJE: Tensor, packing: Packing, options: PackOptions
) -> Tensor:
    """Attend causally inside each sequence of a pack, without laying it out in rows."""
    return attend_varlen(q_THE, k_TJE, v_TJE, packing.pairs, options.band(packing.longest))


def suits_varlen(
    q_THE: Tensor, k_UJE: Tensor, v_UJE: Tensor, packing: PairPacking, options: BandOptions
) -> bool:
    """Whether the kernel takes what `attend_varlen` is given: no query without any key."""
    limited = options.left is not None or options.right is not None
    pairs = zip(packing.queries.lengths, packing.keys.lengths, strict=True)
    return (
        len(packing.queries.sequence_ends) <= _MOST_SEQUENCES
        and max(packing.queries.longest, packing.keys.longest) <= _LONGEST
        and all(keys >= (queries if limited else 1) for queries, keys in pairs)
        and all(queries > 0 for queries in packing.queries.lengths)
        and _takes(q_THE, k_UJE, v_UJE, options)
    )


def attend_varlen(
    q_THE: Tensor, k_UJE: Tensor, v_UJE: Tensor, packing: PairPacking, options: BandOptions
) -> Tensor:
    """Attend in pairs of packed sequences, each query in a band of keys aligned at the end."""
    q, k, v = (in_compute_dtype(part) for part in (q_THE, k_UJE, v_UJE))
    return _fused(q, k, v, packing, options)[0]


def suits_rows(q_BHQE: Tensor, k_BJKE: Tensor, v_BJKE: Tensor, options: RowOptions) -> bool:
    """Whether the kernel takes what `attend` is given."""
    num_queries, num_keys = q_BHQE.shape[2], k_BJKE.shape[2]
    return (
        (options.mask is None or options.mask.dtype == torch.bool)
        and 0 < num_keys <= _LONGEST
        and 0 < num_queries <= _LONGEST
        and (not options.causal or num_queries == num_keys)
        and _takes(q_BHQE, k_BJKE, v_BJKE, options)
    )


def attend(q_BHQE: Tensor, k_BJKE: Tensor, v_BJKE: Tensor, options: RowOptions) -> Tensor:
    """Attend in dense rows: causally, by a mask, or every query to every key."""
    q, k, v = (in_compute_dtype(part) for part in (q_BHQE, k_BJKE, v_BJKE))
    limits = _limits(None, 0 if options.causal else None, q.device)
    if options.mask is not None:
        limits = {"atten_mask": _hidden(options.mask, q, k), "sparse_mode": _FULL_MASK}
    keep_prob = 1 - options.dropout
    return fused_ops().npu_fusion_attention(
        q, k, v, q.shape[1], "BNSD", scale=options.scale, keep_prob=keep_prob, **limits
    )[0]


def _forward_part(
    q_THE: Tensor, k_TJE: Tensor, v_TJE: Tensor, packing: Packing, scale: float
) -> tuple[Tensor, Tensor]:
    """Attend causally; also the logarithm of each query's sum, float32 [T, H]."""
    causal = BandOptions(left=None, right=0, scale=scale)
    out, most, total, *_ = _fused(q_THE, k_TJE, v_TJE, packing.pairs, causal)
    return out, most[..., 0] + total[..., 0].log()


def _backward_part(grad_THE: Tensor, whole: Attended, packing: Packing, scale: float) -> Gradients:
    """Gradients through this part of an attention whose result and sums are of the whole."""
    ends = list(packing.sequence_ends)
    # exp(score - most) / total is the share in the whole where `most` is the logarithm of its sum.
    most = whole.lse_TH[..., None].expand(-1, -1, _STATISTICS).contiguous()
    grad_q, grad_k, grad_v, *_ = fused_ops().npu_fusion_attention_grad(
        whole.q_THE,
        whole.k_TJE,
        whole.v_TJE,
        grad_THE.to(whole.q_THE.dtype),
        whole.q_THE.shape[1],
        "TND",
        softmax_max=most,
        softmax_sum=torch.ones_like(most),
        attention_in=whole.out_THE,
        scale_value=scale,
        keep_prob=1.0,
        actual_seq_qlen=ends,
        actual_seq_kvlen=ends,
        **_limits(None, 0, whole.q_THE.device),
    )
    return grad_q, grad_k, grad_v


def _takes(q: Tensor, k: Tensor, v: Tensor, options: ScoreOptions) -> bool:
    heads, key_heads = q.shape[1], k.shape[1]
    return (
        options.softcap is None
        and q.numel() > 0
        and k.numel() > 0
        and q.shape[-1] == k.shape[-1] == v.shape[-1] <= _WIDEST
        and key_heads == v.shape[1]
        and heads <= _MOST_HEADS
        and heads % key_heads == 0
        and 0 <= options.dropout < 1
        and takes_dtype(*(compute_dtype(part) for part in (q, k, v)))
    )


def _limits(left: int | None, right: int | None, device: torch.device) -> dict[str, Any]:
    """How a query's band of keys is told to the kernel."""
    if left is None and right is None:
        return {}
    limits: dict[str, Any] = {"atten_mask": causal_mask(device), "sparse_mode": _CAUSAL}
    if left is None and right == 0:
        return limits
    before, after = (_UNLIMITED if side is None else side for side in (left, right))
    return {**limits, "sparse_mode": _BAND, "pre_tockens": before, "next_tockens": after}


def _hidden(mask: Tensor, q_BHQE: Tensor, k_BJKE: Tensor) -> Tensor:
    """The opposite of a mask, as the kernel knows it: [B, H, Q, K], [B, 1, Q, K], [1, 1, Q, K]."""
    mask = mask[(None,) * (4 - mask.dim())]
    heads = q_BHQE.shape[1] if mask.shape[1] > 1 else 1
    rows = q_BHQE.shape[0] if heads > 1 else mask.shape[0]
    return ~mask.expand(rows, heads, q_BHQE.shape[2], k_BJKE.shape[2])


def _fused(
    q_THE: Tensor, k_UJE: Tensor, v_UJE: Tensor, packing: PairPacking, options: BandOptions
) -> Any:
    """Result and statistics of the kernel for packs."""
    return fused_ops().npu_fusion_attention(
        q_THE,
        k_UJE,
        v_UJE,
        q_THE.shape[1],
        "TND",
        scale=options.scale,
        keep_prob=1 - options.dropout,
        actual_seq_qlen=list(packing.queries.sequence_ends),
        actual_seq_kvlen=list(packing.keys.sequence_ends),
        **_limits(options.left, options.right, q_THE.device),
    )


PART = CausalPart(
    name=NPU,
    device=NPU,
    forward=_forward_part,
    backward=_backward_part,
    suits=suits_pack,
)
"""Causal attention as a part of a larger one."""
