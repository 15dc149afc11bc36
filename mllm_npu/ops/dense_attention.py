"""Attend in dense rows with grouped key heads: rows that extend a cache, tiles of a picture.

Shape letters: B rows, H query heads, J key heads, Q queries, K keys, E head width, L tokens.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mllm_npu.ops import attention_npu
from mllm_npu.ops.attention_options import RowOptions
from mllm_npu.ops.causal_blocks import attend_in_blocks, suits_blocks
from mllm_npu.ops.npu_extension import NPU
from mllm_npu.ops.ways import Op, Way


def attend(
    q_BHQE: Tensor,
    k_BJKE: Tensor,
    v_BJKE: Tensor,
    *,
    mask: Tensor | None,
    causal: bool,
    scale: float,
    dropout: float = 0.0,
    softcap: float | None = None,
) -> Tensor:
    """Attend in dense rows with grouped key heads, the fastest way the device has.

    Args:
        q_BHQE: queries.
        k_BJKE: keys.
        v_BJKE: values.
        mask: bool, True where a query sees a key, broadcastable to [B, H, Q, K]; each query sees at
            least one. Excludes ``causal``.
        causal: query i sees keys 0..i; needs Q == K.
        scale: factor of the scores.
        dropout: share of attention weights dropped.
        softcap: scores are squashed to +-softcap by tanh; None leaves them.

    Returns:
        float [B, H, Q, E of the values].
    """
    options = RowOptions(mask=mask, causal=causal, scale=scale, dropout=dropout, softcap=softcap)
    return _ATTEND(q_BHQE, k_BJKE, v_BJKE, options)


def attend_reference(
    q_BHQE: Tensor,
    k_BJKE: Tensor,
    v_BJKE: Tensor,
    *,
    mask: Tensor | None,
    causal: bool,
    scale: float,
    dropout: float = 0.0,
    softcap: float | None = None,
) -> Tensor:
    """Say slowly what `attend` gives: scores, their softmax, the sum of values, written out."""
    options = RowOptions(mask=mask, causal=causal, scale=scale, dropout=dropout, softcap=softcap)
    return _attend_written_out(q_BHQE, k_BJKE, v_BJKE, options)


def band_mask(length: int, window: int, device: torch.device) -> Tensor:
    """What a token sees: itself and the ``window - 1`` before it, bool [L, L]."""
    steps = torch.arange(length, device=device)
    distance = steps[:, None] - steps[None, :]
    return (distance >= 0) & (distance < window)


def _attend_written_out(
    q_BHQE: Tensor, k_BJKE: Tensor, v_BJKE: Tensor, options: RowOptions
) -> Tensor:
    k, v = _share_heads(q_BHQE, k_BJKE, v_BJKE)
    scale, softcap, num_queries = options.scale, options.softcap, q_BHQE.shape[2]
    scores = q_BHQE @ k.transpose(2, 3) * (scale if softcap is None else scale / softcap)
    scores = scores if softcap is None else torch.tanh(scores) * softcap
    visible = options.mask
    if options.causal:
        visible = band_mask(num_queries, num_queries, q_BHQE.device)
    scores = scores if visible is None else scores.masked_fill(~visible, -math.inf)
    shares = scores.softmax(-1, dtype=torch.float32).to(v.dtype)
    return F.dropout(shares, options.dropout) @ v


def _suits_blocks(q_BHQE: Tensor, k_BJKE: Tensor, v_BJKE: Tensor, options: RowOptions) -> bool:
    """Without a backward pass torch's kernel is faster, and in float32 as exact."""
    plain = options.softcap is None and not options.dropout
    learns = torch.is_grad_enabled() and any(
        part.requires_grad for part in (q_BHQE, k_BJKE, v_BJKE)
    )
    narrow = q_BHQE.dtype != torch.float32 or torch.is_autocast_enabled(q_BHQE.device.type)
    return plain and options.causal and (learns or narrow) and suits_blocks(q_BHQE)


def _attend_in_blocks(
    q_BHQE: Tensor, k_BJKE: Tensor, v_BJKE: Tensor, options: RowOptions
) -> Tensor:
    """Causal only; one key head for each query head is what its products need."""
    k, v = _share_heads(q_BHQE, k_BJKE, v_BJKE)
    return attend_in_blocks(q_BHQE, k, v, scale=options.scale)


def _attend_by_torch(q_BHQE: Tensor, k_BJKE: Tensor, v_BJKE: Tensor, options: RowOptions) -> Tensor:
    """What torch itself has for the device."""
    return F.scaled_dot_product_attention(
        q_BHQE,
        k_BJKE,
        v_BJKE,
        attn_mask=options.mask,
        is_causal=options.causal,
        scale=options.scale,
        dropout_p=options.dropout,
        enable_gqa=q_BHQE.shape[1] > k_BJKE.shape[1],
    )


def _has_no_softcap(q_BHQE: Tensor, k_BJKE: Tensor, v_BJKE: Tensor, options: RowOptions) -> bool:
    return options.softcap is None


def _share_heads(q_BHQE: Tensor, k_BJKE: Tensor, v_BJKE: Tensor) -> tuple[Tensor, Tensor]:
    """Give each query head its own key head, -> [B, H, K, E] and [B, H, K, E of the values]."""
    repeats = q_BHQE.shape[1] // k_BJKE.shape[1]
    if repeats == 1:
        return k_BJKE, v_BJKE
    return k_BJKE.repeat_interleave(repeats, 1), v_BJKE.repeat_interleave(repeats, 1)


_ATTEND = Op(
    "attend",
    reference=_attend_written_out,
    ways=(
        Way(name=NPU, device=NPU, run=attention_npu.attend, suits=attention_npu.suits_rows),
        Way(name="blocks", device="cpu", run=_attend_in_blocks, suits=_suits_blocks),
        Way(name="torch", run=_attend_by_torch, suits=_has_no_softcap),
        Way(name="written out", run=_attend_written_out),
    ),
)
