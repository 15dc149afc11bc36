"""Causal attention over sequences packed end to end, and over rows that extend a key-value cache.

The truth is `packed_attention_reference`: one sequence after the other. The way that is used gathers the sequences
into right-padded rows grouped by length, runs the fused kernel on each group and gathers the tokens back. A causal
row needs no mask for padding on its right, so no mask of the size of the pack exists anywhere, and both gathers are
index selections forwards and backwards (each token is copied once, so the gradient needs no summing).

Shape letters: T packed tokens, S sequences, L longest sequence of a group, H query heads, J key heads, E head width,
B rows of a dense batch, Q new tokens of a row, K tokens of a row in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from mllm_npu.errors import RequestError

NEVER_VISIBLE = 2**31 - 1
"""Position of a cache place that holds padding: later than any query, so that no query sees it."""

_TOLERATED_PADDING = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceGroup:
    """Sequences of similar length that run as one padded batch.

    Args:
        num_sequences: rows.
        length: tokens of a row, padding included.
    """

    num_sequences: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """Where the sequences of a pack are, prepared once per batch on the host and used by every layer.

    Args:
        sequence_ends: cumulative ends of the sequences without a leading 0.
        groups: the padded batches the sequences run in; their rows lie end to end.
        gather: token of each place of the rows, padding repeats its row's last token, int64 [sum of S * L].
        places: place of each token in the rows, int64 [T].
        real: 1 for a real place of the rows and 0 for padding, float32 [sum of S * L]; None without padding.
        in_order: the rows are the pack as it is, nothing has to be copied.
        receipts: gets the window of each attention call, where a caller wants to know who called; else None.
    """

    sequence_ends: tuple[int, ...]
    groups: tuple[SequenceGroup, ...]
    gather: Tensor
    places: Tensor
    real: Tensor | None
    in_order: bool
    receipts: list[int | None] | None = field(default=None)

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(group.length for group in self.groups)


def pack_sequences(
    sequence_ends: Sequence[int],
    device: torch.device | str,
    *,
    one_group: bool = False,
    receipts: list[int | None] | None = None,
) -> Packing:
    """Plan the padded batches for a pack; host work and one small copy per index.

    Args:
        sequence_ends: cumulative ends without a leading 0, strictly rising.
        device: where the indices are needed.
        one_group: put all sequences in one batch, however unequal they are.
        receipts: see `Packing`.

    Raises:
        RequestError: the ends do not rise or there are none.
    """
    ends = torch.tensor(sequence_ends, dtype=torch.int64, device="cpu")
    starts = F.pad(ends, (1, 0))[:-1]
    lengths = ends - starts
    if not len(sequence_ends) or int(lengths.min()) < 1:
        raise RequestError(
            f"sequence_ends={tuple(sequence_ends)} does not describe a pack; give rising ends such as (3, 7)."
        )
    order = torch.argsort(lengths, descending=True, stable=True)
    groups, gathers, reals = [], [], []
    for first, last in _group_bounds(lengths[order].tolist(), one_group=one_group):
        rows = order[first:last, None]
        length = int(lengths[rows[0]])
        steps = torch.arange(length, device="cpu")
        gathers.append((starts[rows] + torch.minimum(steps, lengths[rows] - 1)).flatten())
        reals.append((steps < lengths[rows]).flatten())
        groups.append(SequenceGroup(num_sequences=last - first, length=length))
    gather, real = torch.cat(gathers), torch.cat(reals)
    places = torch.empty(int(ends[-1]), dtype=torch.int64, device="cpu")
    places[gather[real]] = real.nonzero().flatten()
    padded = not bool(real.all())
    return Packing(
        sequence_ends=tuple(sequence_ends),
        groups=tuple(groups),
        gather=gather.to(device, non_blocking=True),
        places=places.to(device, non_blocking=True),
        real=real.float().to(device, non_blocking=True) if padded else None,
        in_order=len(groups) == 1 and not padded,
        receipts=receipts,
    )


def _group_bounds(falling_lengths: list[int], *, one_group: bool) -> list[tuple[int, int]]:
    """Cut lengths in falling order so that no row of a group is padded by much more than a third of its length."""
    bounds, first = [], 0
    for index, length in enumerate(falling_lengths):
        longest = falling_lengths[first]
        if not one_group and 3 * longest > 4 * length and longest - length > _TOLERATED_PADDING:
            bounds.append((first, index))
            first = index
    return [*bounds, (first, len(falling_lengths))]


class _Rows(torch.autograd.Function):
    """Copy packed tokens into padded rows; padding gets no gradient, so the way back is a selection too."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, tokens: Tensor, packing: Packing) -> Tensor:  # type: ignore[override]
        ctx.packing = packing  # type: ignore[attr-defined]
        return tokens.index_select(0, packing.gather)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return grad.index_select(0, ctx.packing.places), None  # type: ignore[attr-defined]


class _Tokens(torch.autograd.Function):
    """Copy the real places of padded rows back to packed tokens."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, rows: Tensor, packing: Packing) -> Tensor:  # type: ignore[override]
        ctx.packing = packing  # type: ignore[attr-defined]
        return rows.index_select(0, packing.places)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        packing: Packing = ctx.packing  # type: ignore[attr-defined]
        rows = grad.index_select(0, packing.gather)
        if packing.real is not None:
            rows = rows * packing.real.to(rows.dtype).view(-1, *[1] * (rows.dim() - 1))
        return rows, None


def to_rows(tokens: Tensor, packing: Packing) -> Tensor:
    """Packed tokens [T, ...] -> padded rows of all groups end to end [sum of S * L, ...]."""
    return tokens if packing.in_order else _Rows.apply(tokens, packing)


def to_tokens(rows: Tensor, packing: Packing) -> Tensor:
    """Padded rows of all groups end to end [sum of S * L, ...] -> packed tokens [T, ...]."""
    return rows if packing.in_order else _Tokens.apply(rows, packing)


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
    q_rows, k_rows, v_rows = (to_rows(part, packing) for part in (q_THE, k_TJE, v_TJE))
    outputs, offset = [], 0
    for group in packing.groups:
        size = group.num_sequences * group.length
        q, k, v = (
            part.narrow(0, offset, size).unflatten(0, (group.num_sequences, group.length)).transpose(1, 2)
            for part in (q_rows, k_rows, v_rows)
        )
        mask = band_mask(group.length, window, q.device) if window is not None and window < group.length else None
        out = attend(q, k, v, mask=mask, causal=mask is None, scale=scale, dropout=dropout, softcap=softcap)
        outputs.append(out.transpose(1, 2).flatten(0, 1))
        offset += size
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
    """Say slowly what `packed_attention` gives: each sequence alone, scores and softmax spelt out."""
    repeats = q_THE.shape[1] // k_TJE.shape[1]
    outputs, start = [], 0
    for end in sequence_ends:
        q = q_THE[start:end].transpose(0, 1)
        k, v = (part[start:end].transpose(0, 1).repeat_interleave(repeats, 0) for part in (k_TJE, v_TJE))
        scores = q @ k.transpose(1, 2) * scale
        scores = scores if softcap is None else torch.tanh(scores / softcap) * softcap
        visible = band_mask(end - start, window or end - start, q.device)
        outputs.append((scores.masked_fill(~visible, -math.inf).softmax(-1) @ v).transpose(0, 1))
        start = end
    return torch.cat(outputs)


def band_mask(length: int, window: int, device: torch.device) -> Tensor:
    """What each of ``length`` tokens sees: itself and the ``window - 1`` before it, bool [length, length]."""
    steps = torch.arange(length, device=device)
    distance = steps[:, None] - steps[None, :]
    return (distance >= 0) & (distance < window)


def visible_keys(query_positions_BQ: Tensor, key_positions_BK: Tensor, window: int | None) -> Tensor:
    """What new tokens see of a cache: keys not after them and inside the window, bool [B, 1, Q, K]."""
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
    """Attend in dense rows with grouped key heads, by the fused kernel where it can do what is asked.

    Args:
        q_BHQE: queries.
        k_BJKE: keys.
        v_BJKE: values.
        mask: bool, True where a query sees a key, broadcastable to [B, H, Q, K]; excludes ``causal``.
        causal: query i sees keys 0..i; needs Q == K.
        scale: factor of the scores.
        dropout: share of attention weights dropped.
        softcap: see `packed_attention`.

    Returns:
        float [B, H, Q, E of the values].
    """
    if softcap is None:
        return F.scaled_dot_product_attention(
            q_BHQE,
            k_BJKE,
            v_BJKE,
            attn_mask=mask,
            is_causal=causal,
            scale=scale,
            dropout_p=dropout,
            enable_gqa=q_BHQE.shape[1] != k_BJKE.shape[1],
        )
    repeats = q_BHQE.shape[1] // k_BJKE.shape[1]
    k, v = (part.repeat_interleave(repeats, 1) for part in (k_BJKE, v_BJKE))
    scores = torch.tanh(q_BHQE @ k.transpose(2, 3) * (scale / softcap)) * softcap
    visible = band_mask(q_BHQE.shape[2], q_BHQE.shape[2], q_BHQE.device) if causal else mask
    scores = scores if visible is None else scores.masked_fill(~visible, -math.inf)
    return F.dropout(scores.softmax(-1, dtype=torch.float32).to(v.dtype), dropout) @ v
