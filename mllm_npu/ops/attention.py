"""Causal attention over sequences packed end to end, and over rows that extend a key-value cache.

The truth is `packed_attention_reference`: one sequence after the other. The way that is used
gathers the sequences into right-padded rows grouped by length, attends in each group by the
device's fused kernel (or, on a CPU, by blocks of matrix products) and gathers the tokens back. A
causal row needs no mask for padding on its right, so no mask of the size of the pack exists
anywhere.

Shape letters: T packed tokens, H query heads, J key heads, E head width, B rows of a dense batch,
Q new tokens of a row, K tokens of a row in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mllm_npu.ops.causal_blocks import attend_in_blocks, in_compute_dtype, suits_blocks
from mllm_npu.ops.packing import Packing, to_rows, to_tokens

NEVER_VISIBLE = 2**31 - 1
"""Position of a cache place that holds padding: later than any query, so that no query sees it."""


def packed_attention(
    q_THE: Tensor,
    k_TJE: Tensor,
    v_TJE: Tensor,
    packing: Packing,
    *,
    scale: float,
    dropout: float = 0.0,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Attend causally inside each sequence of a pack.

    Args:
        q_THE: queries.
        k_TJE: keys; H is a multiple of J.
        v_TJE: values; their width may differ from E.
        packing: from `pack_sequences`.
        scale: factor of the scores.
        dropout: share of attention weights dropped.
        window: a token sees this many tokens, itself included; None sees all before it.
        softcap: scores are squashed to +-softcap by tanh; None leaves them.

    Returns:
        float [T, H, E of the values].
    """
    sizes = [group.num_sequences * group.length for group in packing.groups]
    # Narrowed before they are copied, not by the kernel afterwards.
    parts = (in_compute_dtype(part) for part in (q_THE, k_TJE, v_TJE))
    rows = (torch.split(to_rows(part, packing), sizes) for part in parts)
    outputs = []
    for group, *own in zip(packing.groups, *rows, strict=True):
        shape = (group.num_sequences, group.length)
        q, k, v = (part.view(*shape, *part.shape[1:]).transpose(1, 2) for part in own)
        mask = (
            band_mask(group.length, window, q.device)
            if window is not None and window < group.length
            else None
        )
        out = attend(
            q, k, v, mask=mask, causal=mask is None, scale=scale, dropout=dropout, softcap=softcap
        )
        outputs.append(out.transpose(1, 2).flatten(0, 1))
    return to_tokens(outputs[0] if len(outputs) == 1 else torch.cat(outputs), packing)


def packed_attention_reference(
    q_THE: Tensor,
    k_TJE: Tensor,
    v_TJE: Tensor,
    sequence_ends: Sequence[int],
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Say slowly what `packed_attention` gives, one sequence after the other."""
    repeats = q_THE.shape[1] // k_TJE.shape[1]
    outputs, start = [], 0
    for end in sequence_ends:
        q = q_THE[start:end].transpose(0, 1)
        k, v = (
            part[start:end].transpose(0, 1).repeat_interleave(repeats, 0) for part in (k_TJE, v_TJE)
        )
        scores = q @ k.transpose(1, 2) * scale
        scores = scores if softcap is None else torch.tanh(scores / softcap) * softcap
        visible = band_mask(end - start, window or end - start, q.device)
        outputs.append((scores.masked_fill(~visible, -math.inf).softmax(-1) @ v).transpose(0, 1))
        start = end
    return torch.cat(outputs)


def band_mask(length: int, window: int, device: torch.device) -> Tensor:
    """What a token sees: itself and the ``window - 1`` before it, bool [length, length]."""
    steps = torch.arange(length, device=device)
    distance = steps[:, None] - steps[None, :]
    return (distance >= 0) & (distance < window)


def visible_keys(
    query_positions_BQ: Tensor, key_positions_BK: Tensor, window: int | None
) -> Tensor:
    """What new tokens see of a cache: keys up to them, in the window, bool [B, 1, Q, K]."""
    distance = query_positions_BQ[:, None, :, None] - key_positions_BK[:, None, None, :]
    return distance >= 0 if window is None else (distance >= 0) & (distance < window)


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
        mask: bool, True where a query sees a key, broadcastable to [B, H, Q, K]; excludes
            ``causal``.
        causal: query i sees keys 0..i; needs Q == K.
        scale: factor of the scores.
        dropout: share of attention weights dropped.
        softcap: see `packed_attention`.

    Returns:
        float [B, H, Q, E of the values].
    """
    repeats = q_BHQE.shape[1] // k_BJKE.shape[1]
    if causal and softcap is None and not dropout and suits_blocks(q_BHQE):
        return attend_in_blocks(
            q_BHQE, _share_heads(k_BJKE, repeats), _share_heads(v_BJKE, repeats), scale=scale
        )
    if softcap is None:
        return F.scaled_dot_product_attention(
            q_BHQE,
            k_BJKE,
            v_BJKE,
            attn_mask=mask,
            is_causal=causal,
            scale=scale,
            dropout_p=dropout,
            enable_gqa=repeats > 1,
        )
    k, v = (_share_heads(part, repeats) for part in (k_BJKE, v_BJKE))
    scores = torch.tanh(q_BHQE @ k.transpose(2, 3) * (scale / softcap)) * softcap
    visible = band_mask(q_BHQE.shape[2], q_BHQE.shape[2], q_BHQE.device) if causal else mask
    scores = scores if visible is None else scores.masked_fill(~visible, -math.inf)
    return F.dropout(scores.softmax(-1, dtype=torch.float32).to(v.dtype), dropout) @ v


def _share_heads(part_BJKE: Tensor, repeats: int) -> Tensor:
    """Give each query head its key head, [B, J, K, E] -> [B, H, K, E]."""
    return part_BJKE if repeats == 1 else part_BJKE.repeat_interleave(repeats, 1)
