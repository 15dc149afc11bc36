"""Attend causally in sequences packed end to end.

The truth is `packed_attention_reference`: one sequence after the other. Accelerators have kernels
that take the pack as it is; everything else goes by rows (see `attention_rows`).

Shape letters: T packed tokens, H query heads, J key heads, E head width, B rows of a dense batch,
L tokens of a sequence, Q new tokens of a row, K tokens of a row in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mllm_npu.errors import RequestError
from mllm_npu.ops import attention_flash, attention_npu
from mllm_npu.ops.attention_flash import CUDA
from mllm_npu.ops.attention_options import PackOptions, ScoreOptions
from mllm_npu.ops.attention_rows import attend_in_rows
from mllm_npu.ops.dense_attention import attend, band_mask
from mllm_npu.ops.npu_extension import NPU
from mllm_npu.ops.packing import Packing
from mllm_npu.ops.ways import Op, Way

__all__ = [
    "NEVER_VISIBLE",
    "attend",
    "attend_by_masks",
    "band_mask",
    "packed_attention",
    "packed_attention_reference",
    "visible_keys",
]

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

    Raises:
        RequestError: the pack has another number of tokens.
    """
    if q_THE.shape[0] != packing.sequence_ends[-1]:
        raise RequestError(
            f"Attention was asked for {q_THE.shape[0]} tokens in a pack of "
            f"{packing.sequence_ends[-1]}. Pack the sequences of these tokens."
        )
    options = PackOptions(scale=scale, dropout=dropout, window=window, softcap=softcap)
    return _PACKED_ATTENTION(q_THE, k_TJE, v_TJE, packing, options)


def packed_attention_reference(
    q_THE: Tensor,
    k_TJE: Tensor,
    v_TJE: Tensor,
    sequence_ends: Sequence[int],
    *,
    scale: float,
    dropout: float = 0.0,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Say slowly what `packed_attention` gives, one sequence after the other."""
    packing = Packing(sequence_ends=tuple(sequence_ends), device=q_THE.device)
    options = PackOptions(scale=scale, dropout=dropout, window=window, softcap=softcap)
    return _attend_by_sequence(q_THE, k_TJE, v_TJE, packing, options)


def visible_keys(
    query_positions_BQ: Tensor, key_positions_BK: Tensor, window: int | None
) -> Tensor:
    """What new tokens see of a cache: keys up to them, in the window, bool [B, 1, Q, K]."""
    distance = query_positions_BQ[:, None, :, None] - key_positions_BK[:, None, None, :]
    return distance >= 0 if window is None else (distance >= 0) & (distance < window)


def attend_by_masks(
    q_THE: Tensor,
    k_TJE: Tensor,
    v_TJE: Tensor,
    visible: Iterable[Tensor],
    options: ScoreOptions,
) -> Tensor:
    """Attend slowly, one sequence of a pack after the other.

    Args:
        q_THE: queries.
        k_TJE: keys; H is a multiple of J.
        v_TJE: values; their width may differ from E.
        visible: for each sequence in turn what its tokens see of it, bool [L, L].
        options: how scores become shares.

    Returns:
        float [T, H, E of the values].
    """
    repeats = q_THE.shape[1] // k_TJE.shape[1]
    softcap = options.softcap
    outputs, start = [], 0
    for visible_LL in visible:
        end = start + len(visible_LL)
        q = q_THE[start:end].transpose(0, 1)
        k, v = (
            part[start:end].transpose(0, 1).repeat_interleave(repeats, 0) for part in (k_TJE, v_TJE)
        )
        scores = q @ k.transpose(1, 2) * options.scale
        scores = scores if softcap is None else torch.tanh(scores / softcap) * softcap
        shares = scores.masked_fill(~visible_LL, -math.inf).softmax(-1)
        outputs.append((F.dropout(shares, options.dropout) @ v).transpose(0, 1))
        start = end
    return torch.cat(outputs)


def _attend_by_sequence(
    q_THE: Tensor, k_TJE: Tensor, v_TJE: Tensor, packing: Packing, options: PackOptions
) -> Tensor:
    lengths, device = packing.lengths, q_THE.device
    visible = (band_mask(length, options.window or length, device) for length in lengths)
    return attend_by_masks(q_THE, k_TJE, v_TJE, visible, options)


_PACKED_ATTENTION = Op(
    "packed_attention",
    reference=_attend_by_sequence,
    ways=(
        Way(name=NPU, device=NPU, run=attention_npu.attend_pack, suits=attention_npu.suits_pack),
        Way(
            name="flash library",
            device=CUDA,
            run=attention_flash.attend_pack,
            suits=attention_flash.suits_library,
        ),
        Way(
            name="flash torch",
            device=CUDA,
            run=attention_flash.attend_pack,
            suits=attention_flash.suits_torch,
        ),
        Way(name="rows", run=attend_in_rows),
    ),
)
