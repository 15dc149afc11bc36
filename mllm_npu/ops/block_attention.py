"""Attend causally in a pack whose blocks see all of themselves: text with pictures in it.

A token sees all tokens before it in its sequence; a token of a block also those behind it in the
block. No mask of the size of the scores exists: one causal call attends to what is before, a second
to what is behind. In the second the blocks run backwards, queries without each block's last token
and keys without its first, so a causal query sees exactly the tokens behind it. The two results are
merged by their sums of exponentials, and each backward pass is given the merged ones.

Shape letters: T packed tokens, H query heads, J key heads, E head width, L tokens of a sequence, R
queries of all blocks in the second call.

Source: merging partial attentions is that of FlashAttention (Dao et al. 2022) and Ring Attention
    (Liu et al. 2023).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mllm_npu.device.transfer import to_device
from mllm_npu.errors import RequestError
from mllm_npu.ops import attention_flash, attention_npu
from mllm_npu.ops.attention import attend_by_masks
from mllm_npu.ops.attention_options import ScoreOptions
from mllm_npu.ops.autocast import in_compute_dtype, without_autocast
from mllm_npu.ops.causal_part import IN_BLOCKS, Attended, CausalPart
from mllm_npu.ops.packing import Packing, pack_sequences
from mllm_npu.ops.ways import Op, Way


@dataclass(frozen=True, kw_only=True)
class BlockPacking:
    """Where the sequences of a pack and their blocks are; prepared once, used by every layer.

    Args:
        packing: the sequences.
        blocks: first token and end of each block in the pack, rising; each in one sequence.
    """

    packing: Packing
    blocks: tuple[tuple[int, int], ...]

    @cached_property
    def backwards(self) -> Packing | None:
        """The pack of the second call: each block without one token; None if no token is left."""
        lengths = [end - start - 1 for start, end in self.blocks if end - start > 1]
        return pack_sequences([*accumulate(lengths)], self.packing.device) if lengths else None

    @cached_property
    def queries(self) -> Tensor:
        """Token of each query of the second call, int64 [R]; its first key is the next token."""
        steps = [torch.arange(end - 2, start - 1, -1, device="cpu") for start, end in self.blocks]
        return to_device(torch.cat(steps), self.packing.device)

    @cached_property
    def keys(self) -> Tensor:
        """Token of each key of the second call, int64 [R]."""
        return self.queries + 1


def pack_blocks(packing: Packing, blocks: Sequence[tuple[int, int]]) -> BlockPacking:
    """Say where the blocks of a pack are; host work only.

    Args:
        packing: the sequences.
        blocks: first token and end of each, rising, in the numbers of the pack's tokens.

    Raises:
        RequestError: a block is empty, overlaps another, or is not inside one sequence.
    """
    ends = iter((*packing.sequence_ends, math.inf))
    sequence_end, last = next(ends), 0
    for start, end in blocks:
        while sequence_end <= start:
            sequence_end = next(ends)
        if not (last <= start < end <= sequence_end < math.inf):
            raise RequestError(
                f"The block of tokens {start}..{end} does not fit sequences that end at "
                f"{packing.sequence_ends}. Give rising blocks that each lie inside one sequence."
            )
        last = end
    return BlockPacking(packing=packing, blocks=tuple((int(a), int(b)) for a, b in blocks))


def block_attention(
    q_THE: Tensor, k_TJE: Tensor, v_TJE: Tensor, layout: BlockPacking, *, scale: float
) -> Tensor:
    """Attend to all tokens before and, inside a block, to those behind.

    Args:
        q_THE: queries.
        k_TJE: keys; H is a multiple of J.
        v_TJE: values.
        layout: from `pack_blocks`.
        scale: factor of the scores.

    Returns:
        float [T, H, E].
    """
    return _BLOCK_ATTENTION(q_THE, k_TJE, v_TJE, layout, ScoreOptions(scale=scale))


def block_attention_reference(
    q_THE: Tensor, k_TJE: Tensor, v_TJE: Tensor, layout: BlockPacking, *, scale: float
) -> Tensor:
    """Say slowly what `block_attention` gives: a mask of all scores, one sequence by another."""
    return _attend_by_sequence(q_THE, k_TJE, v_TJE, layout, ScoreOptions(scale=scale))


def _attend_by_sequence(
    q_THE: Tensor, k_TJE: Tensor, v_TJE: Tensor, layout: BlockPacking, options: ScoreOptions
) -> Tensor:
    return attend_by_masks(q_THE, k_TJE, v_TJE, _visible(layout, q_THE.device), options)


def _visible(layout: BlockPacking, device: torch.device) -> Iterator[Tensor]:
    """What the tokens of each sequence see of it, bool [L, L]."""
    start = 0
    for end in layout.packing.sequence_ends:
        visible_LL = torch.ones(end - start, end - start, dtype=torch.bool, device=device).tril()
        for first, last in layout.blocks:
            if start <= first < end:
                visible_LL[first - start : last - start, first - start : last - start] = True
        yield visible_LL
        start = end


def _attend_in_parts(
    part: CausalPart,
    q_THE: Tensor,
    k_TJE: Tensor,
    v_TJE: Tensor,
    layout: BlockPacking,
    options: ScoreOptions,
) -> Tensor:
    inputs = [in_compute_dtype(one) for one in (q_THE, k_TJE, v_TJE)]
    with without_autocast(q_THE):
        return _BlockAttention.apply(*inputs, layout, options.scale, part)  # type: ignore[no-untyped-call]


class _BlockAttention(torch.autograd.Function):
    """Two causal parts and what merges them."""

    @staticmethod
    def forward(
        ctx: Any,
        q_THE: Tensor,
        k_TJE: Tensor,
        v_TJE: Tensor,
        layout: BlockPacking,
        scale: float,
        part: CausalPart,
    ) -> Tensor:
        out_THE, lse_TH = part.forward(q_THE, k_TJE, v_TJE, layout.packing, scale)
        if layout.backwards is not None:
            behind = _select_behind(layout, q_THE, k_TJE, v_TJE)
            out_RHE, lse_RH = part.forward(*behind, layout.backwards, scale)
            out_THE, lse_TH = _merge(out_THE, lse_TH, out_RHE, lse_RH, layout.queries)
        out_THE = out_THE.to(q_THE.dtype)
        ctx.save_for_backward(q_THE, k_TJE, v_TJE, out_THE, lse_TH)
        ctx.layout, ctx.scale, ctx.part = layout, scale, part
        return out_THE

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_THE: Tensor) -> tuple[Tensor | None, ...]:
        q_THE, k_TJE, v_TJE, out_THE, lse_TH = ctx.saved_tensors
        whole = Attended(q_THE=q_THE, k_TJE=k_TJE, v_TJE=v_TJE, out_THE=out_THE, lse_TH=lse_TH)
        layout: BlockPacking = ctx.layout
        part: CausalPart = ctx.part
        grad_THE = grad_THE.contiguous()
        with without_autocast(q_THE):
            grads = part.backward(grad_THE, whole, layout.packing, ctx.scale)
            if layout.backwards is not None:
                q, k, v = _select_behind(layout, q_THE, k_TJE, v_TJE)
                grad_RHE, out, lse = (
                    one.index_select(0, layout.queries) for one in (grad_THE, out_THE, lse_TH)
                )
                behind = Attended(q_THE=q, k_TJE=k, v_TJE=v, out_THE=out, lse_TH=lse)
                more = part.backward(grad_RHE, behind, layout.backwards, ctx.scale)
                grad_q = _add_at(grads[0], layout.queries, more[0])
                grad_k = _add_at(grads[1], layout.keys, more[1])
                grads = (grad_q, grad_k, _add_at(grads[2], layout.keys, more[2]))
        return *grads, None, None, None


def _select_behind(
    layout: BlockPacking, q_THE: Tensor, k_TJE: Tensor, v_TJE: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of the second call."""
    k, v = (part.index_select(0, layout.keys) for part in (k_TJE, v_TJE))
    return q_THE.index_select(0, layout.queries), k, v


def _merge(
    out_THE: Tensor, lse_TH: Tensor, out_RHE: Tensor, lse_RH: Tensor, queries_R: Tensor
) -> tuple[Tensor, Tensor]:
    """Weigh what both calls found for the same queries by their sums, in float32."""
    before_RH = lse_TH.index_select(0, queries_R)
    most_RH = torch.maximum(before_RH, lse_RH)
    both_RH = most_RH + ((before_RH - most_RH).exp() + (lse_RH - most_RH).exp()).log()
    share_before, share_behind = (
        (one_RH - both_RH).exp()[..., None] for one_RH in (before_RH, lse_RH)
    )
    merged_RHE = share_before * out_THE.index_select(0, queries_R) + share_behind * out_RHE
    whole_THE = out_THE.to(merged_RHE.dtype).index_copy(0, queries_R, merged_RHE)
    return whole_THE, lse_TH.index_copy(0, queries_R, both_RH)


def _add_at(whole: Tensor, places: Tensor, more: Tensor) -> Tensor:
    """Add at different places; nothing is summed by atomic operations."""
    return whole.index_copy(0, places, whole.index_select(0, places) + more)


def _suits(
    part: CausalPart,
    q_THE: Tensor,
    k_TJE: Tensor,
    v_TJE: Tensor,
    layout: BlockPacking,
    options: ScoreOptions,
) -> bool:
    packs = [pack for pack in (layout.packing, layout.backwards) if pack is not None]
    inputs = (q_THE, k_TJE, v_TJE)
    return part.suits is None or all(part.suits(*inputs, pack, options) for pack in packs)


_BLOCK_ATTENTION = Op(
    "block_attention",
    reference=_attend_by_sequence,
    ways=[
        Way(
            name=part.name,
            device=part.device,
            run=functools.partial(_attend_in_parts, part),
            suits=functools.partial(_suits, part),
        )
        for part in (attention_npu.PART, attention_flash.PART, IN_BLOCKS)
    ],
)
