"""Attend in pairs of packed sequences, each query in a band of keys aligned at the end.

Query i of Q sees key j of K where ``i + K - Q - left <= j <= i + K - Q + right``; a query that sees
no key gives zeros.

Shape letters: T queries of a pack, U keys of a pack, H query heads, J key heads, E head width, N
pairs of the same lengths, Q queries and K keys of a sequence.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mllm_npu.device.transfer import to_device
from mllm_npu.ops import attention_flash, attention_npu
from mllm_npu.ops.attention_flash import CUDA
from mllm_npu.ops.attention_options import BandOptions
from mllm_npu.ops.autocast import in_compute_dtype
from mllm_npu.ops.dense_attention import attend, attend_reference
from mllm_npu.ops.npu_extension import NPU
from mllm_npu.ops.packing import PairPacking, pair_sequences
from mllm_npu.ops.ways import Op, Way


def varlen_attention(
    q_THE: Tensor,
    k_UJE: Tensor,
    v_UJE: Tensor,
    ends_q: Sequence[int],
    ends_k: Sequence[int],
    *,
    left: int | None,
    right: int | None,
    scale: float,
    dropout: float = 0.0,
) -> Tensor:
    """Attend in pairs of packed sequences, the fastest way the device has.

    Args:
        q_THE: queries.
        k_UJE: keys; H is a multiple of J.
        v_UJE: values; their width may differ from E.
        ends_q: cumulative ends of the queries' sequences without a leading 0; they may be empty.
        ends_k: the same of the keys', as many.
        left: keys before its own place that a query sees; None sees all.
        right: keys after its own place that a query sees, 0 is causal; None sees all.
        scale: factor of the scores.
        dropout: share of attention weights dropped.

    Returns:
        float [T, H, E of the values].
    """
    if not q_THE.shape[0]:
        return q_THE[..., :1].expand(0, q_THE.shape[1], v_UJE.shape[2])
    packing = pair_sequences(ends_q, ends_k, q_THE.device)
    options = BandOptions(left=left, right=right, scale=scale, dropout=dropout)
    return _VARLEN_ATTENTION(q_THE, k_UJE, v_UJE, packing, options)


def varlen_attention_reference(
    q_THE: Tensor,
    k_UJE: Tensor,
    v_UJE: Tensor,
    ends_q: Sequence[int],
    ends_k: Sequence[int],
    *,
    left: int | None,
    right: int | None,
    scale: float,
    dropout: float = 0.0,
) -> Tensor:
    """Say slowly what `varlen_attention` gives: pair by pair, query by query what it sees."""
    packing = pair_sequences(ends_q, ends_k, q_THE.device)
    options = BandOptions(left=left, right=right, scale=scale, dropout=dropout)
    return _attend_by_query(q_THE, k_UJE, v_UJE, packing, options)


def _attend_by_query(
    q_THE: Tensor, k_UJE: Tensor, v_UJE: Tensor, packing: PairPacking, options: BandOptions
) -> Tensor:
    left, right, scale, dropout = options.left, options.right, options.scale, options.dropout
    ends_q, ends_k = packing.queries.sequence_ends, packing.keys.sequence_ends
    outputs = [v_UJE.new_zeros(0, q_THE.shape[1], v_UJE.shape[2])]
    starts = zip((0, *ends_q), (0, *ends_k), strict=True)
    for (start_q, start_k), end_q, end_k in zip(starts, ends_q, ends_k, strict=False):
        num_queries, num_keys = end_q - start_q, end_k - start_k
        for query in range(num_queries):
            place = query + num_keys - num_queries
            first = 0 if left is None else max(0, place - left)
            end = num_keys if right is None else min(num_keys, place + right + 1)
            seen = slice(start_k + first, start_k + max(first, end))
            k, v = (part[seen].transpose(0, 1)[None] for part in (k_UJE, v_UJE))
            q = q_THE[start_q + query, :, None][None]
            out = attend_reference(q, k, v, mask=None, causal=False, scale=scale, dropout=dropout)
            outputs.append(out[:, :, 0])
    return torch.cat(outputs)


def attend_by_lengths(
    q_THE: Tensor, k_UJE: Tensor, v_UJE: Tensor, packing: PairPacking, options: BandOptions
) -> Tensor:
    """Attend in all pairs of the same lengths at once, as dense rows."""
    q, k, v = (in_compute_dtype(part) for part in (q_THE, k_UJE, v_UJE))
    starts_of = _starts_by_lengths(packing)
    if len(starts_of) == 1:  # the packs are dense as they are
        ((num_queries, num_keys),) = starts_of
        (starts,) = starts_of.values()
        q = q.view(len(starts), num_queries, *q.shape[1:])
        k, v = (part.view(len(starts), num_keys, *part.shape[1:]) for part in (k, v))
        return _attend_dense(q, k, v, options).flatten(0, 1)
    outputs, places = [], []
    for (num_queries, num_keys), starts in starts_of.items():
        of_queries = _places([start for start, _ in starts], num_queries)
        of_keys = _places([start for _, start in starts], num_keys)
        rows = (_take(q, of_queries), _take(k, of_keys), _take(v, of_keys))
        outputs.append(_attend_dense(*rows, options).flatten(0, 1))
        places.append(of_queries.flatten())
    back = to_device(torch.cat(places).argsort(), q.device)
    return torch.cat(outputs).index_select(0, back)


def _starts_by_lengths(packing: PairPacking) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """First query and key of each pair, by the numbers of queries and keys."""
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    start_q, start_k = 0, 0
    for lengths in zip(packing.queries.lengths, packing.keys.lengths, strict=True):
        found.setdefault(lengths, []).append((start_q, start_k))
        start_q, start_k = start_q + lengths[0], start_k + lengths[1]
    return found


def _places(starts: Sequence[int], length: int) -> Tensor:
    """Tokens of sequences of one length, int64 [N, length], on the host."""
    return torch.tensor(starts, device="cpu")[:, None] + torch.arange(length, device="cpu")


def _take(part_THE: Tensor, places_NQ: Tensor) -> Tensor:
    """Tokens as dense rows, [T, H, E] -> [N, Q, H, E]."""
    index = to_device(places_NQ.flatten(), part_THE.device)
    return part_THE.index_select(0, index).view(*places_NQ.shape, *part_THE.shape[1:])


def _attend_dense(q_NQHE: Tensor, k_NKJE: Tensor, v_NKJE: Tensor, options: BandOptions) -> Tensor:
    """Attend in pairs of the same lengths, -> [N, Q, H, E of the values]."""
    num_queries, num_keys = q_NQHE.shape[1], k_NKJE.shape[1]
    left, right = options.left, options.right
    blind = num_blind(num_queries, num_keys, right)
    q, k, v = (part.transpose(1, 2) for part in (q_NQHE[:, blind:], k_NKJE, v_NKJE))
    num_seeing = num_queries - blind
    if not num_seeing:
        out = q[..., :1].expand(*q.shape[:3], v.shape[3])
    else:
        far_left = left is None or left >= num_keys - 1
        far_right = right is None or right >= num_seeing - 1
        causal = not far_right and right == 0 and far_left and num_seeing == num_keys
        mask = (
            None
            if causal or (far_left and far_right)
            else _band(num_seeing, num_keys, left, right, q.device)
        )
        out = attend(
            q, k, v, mask=mask, causal=causal, scale=options.scale, dropout=options.dropout
        )
    return F.pad(out.transpose(1, 2), (0, 0, 0, 0, blind, 0)) if blind else out.transpose(1, 2)


def num_blind(num_queries: int, num_keys: int, right: int | None) -> int:
    """How many queries see no key; they are the first of their sequence."""
    if not num_keys:
        return num_queries
    return 0 if right is None else min(num_queries, max(0, num_queries - num_keys - right))


def _band(
    num_queries: int, num_keys: int, left: int | None, right: int | None, device: torch.device
) -> Tensor:
    """What queries see, bool [Q, K]."""
    places = torch.arange(num_keys - num_queries, num_keys, device=device)
    distance = torch.arange(num_keys, device=device)[None, :] - places[:, None]
    least = -num_keys if left is None else -left
    most = num_keys + num_queries if right is None else right
    return (distance >= least) & (distance <= most)


_VARLEN_ATTENTION = Op(
    "varlen_attention",
    reference=_attend_by_query,
    ways=(
        Way(
            name=NPU, device=NPU, run=attention_npu.attend_varlen, suits=attention_npu.suits_varlen
        ),
        Way(
            name="flash library",
            device=CUDA,
            run=attention_flash.attend_varlen,
            suits=attention_flash.suits_library,
        ),
        Way(name="by lengths", run=attend_by_lengths),
    ),
)
