"""Attend causally by matrix products of whole blocks of queries: the way of a CPU.

A block of queries sees the keys up to its own end, so of the half that a causal row does not see
only half a block per query is computed. The fused kernel of a CPU makes its products tile by tile
and is slow in the backward pass, above all in bfloat16; here every product is as large as it can
be, and the shares of attention are kept for the backward pass instead of computed again.

Shape letters: N rows of a batch times heads, L tokens of a row, E head width, V width of the
values, B queries of a block, K keys up to the end of the block.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mllm_npu.ops.autocast import in_compute_dtype, without_autocast

LONGEST_ROW = 1024
"""Up to here the kept shares take no more memory than the other results of a layer do."""
_LARGEST_BLOCK = 96
"""Queries of a block: fewer make small products, more compute more of what is not seen."""
_GRAIN = 16
"""Blocks are multiples of this, as wide as a processor's registers."""


def suits_blocks(q_BHQE: Tensor) -> bool:
    """Whether causal rows are attended faster by blocks than by the device's fused kernel."""
    return q_BHQE.device.type == "cpu" and 0 < q_BHQE.shape[2] <= LONGEST_ROW


def attend_in_blocks(q_BHQE: Tensor, k_BHQE: Tensor, v_BHQV: Tensor, *, scale: float) -> Tensor:
    """Attend causally in dense rows; as many key heads as query heads.

    Args:
        q_BHQE: queries.
        k_BHQE: keys.
        v_BHQV: values.
        scale: factor of the scores.

    Returns:
        float [B, H, Q, V], in the dtype of autocast where it is on.
    """
    parts = (q_BHQE, k_BHQE, v_BHQV)
    rows = [in_compute_dtype(part).contiguous().flatten(0, 1) for part in parts]
    with without_autocast(q_BHQE):
        out_NLV: Tensor = _CausalBlocks.apply(*rows, scale)  # type: ignore[no-untyped-call]
    return out_NLV.view(*q_BHQE.shape[:3], -1)


class _CausalBlocks(torch.autograd.Function):
    """Softmax attention written out, block by block of queries."""

    @staticmethod
    def forward(ctx: Any, q_NLE: Tensor, k_NLE: Tensor, v_NLV: Tensor, scale: float) -> Tensor:
        later_BB = q_NLE.new_full((_LARGEST_BLOCK, _LARGEST_BLOCK), -math.inf).triu_(1)
        outputs, kept = [], []
        for start, end in _bounds(q_NLE.shape[1]):
            scores_NBK = _product(q_NLE[:, start:end], _transposed(k_NLE[:, :end]), scale)
            size = end - start
            scores_NBK[:, :, start:].add_(later_BB[:size, :size])
            shares_NBK = scores_NBK.softmax(-1)
            outputs.append(shares_NBK @ v_NLV[:, :end])
            if any(ctx.needs_input_grad):
                kept.append(shares_NBK)
        ctx.save_for_backward(q_NLE, k_NLE, v_NLV, *kept)
        ctx.scale = scale
        return torch.cat(outputs, 1)

    @staticmethod
    def backward(ctx: Any, grad_NLV: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q_NLE, k_NLE, v_NLV, *kept = ctx.saved_tensors
        grad_NLV = grad_NLV.contiguous()
        grad_q, grad_k, grad_v = [], torch.empty_like(k_NLE), torch.empty_like(v_NLV)
        # The last block sees all keys, so it is the first to write and the others add.
        bounds = _bounds(q_NLE.shape[1])
        for (start, end), shares_NBK in reversed([*zip(bounds, kept, strict=True)]):
            beta = int(end < q_NLE.shape[1])
            grad_NBV = grad_NLV[:, start:end]
            grad_NBK = grad_NBV @ _transposed(v_NLV[:, :end])
            grad_NBK = torch._softmax_backward_data(grad_NBK, shares_NBK, -1, grad_NBK.dtype)
            grad_q.append(_product(grad_NBK, k_NLE[:, :end], ctx.scale))
            grad_v[:, :end].baddbmm_(shares_NBK.transpose(1, 2), grad_NBV, beta=beta)
            grad_k[:, :end].baddbmm_(
                grad_NBK.transpose(1, 2), q_NLE[:, start:end], beta=beta, alpha=ctx.scale
            )
        return torch.cat(grad_q[::-1], 1), grad_k, grad_v, None


def _bounds(length: int) -> list[tuple[int, int]]:
    """First query and end of each block; all but the last are equal, and that is not tiny."""
    even = -(-length // -(-length // _LARGEST_BLOCK))
    size = -(-even // _GRAIN) * _GRAIN
    return [(start, min(start + size, length)) for start in range(0, length, size)]


def _product(left: Tensor, right: Tensor, scale: float) -> Tensor:
    """Scaled before it is rounded."""
    return torch.baddbmm(left.new_empty(()), left, right, beta=0, alpha=scale)


def _transposed(part_NKE: Tensor) -> Tensor:
    """Of a copy without gaps: a transposed factor with gaps is multiplied much more slowly."""
    return part_NKE.contiguous().transpose(1, 2)
