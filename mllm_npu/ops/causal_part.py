"""Attend causally as a part of a larger attention: with the sums that parts are merged by.

The forward pass gives each query's result and the logarithm of its sum of exponentials. The
backward pass is given both of the whole attention, so what it gives adds up over the parts.
Everything is computed in float32, by products of blocks of queries, and nothing but the inputs is
kept.

Shape letters: T packed tokens, H query heads, J key heads, E head width, N rows of a group times
heads, L tokens of a row, B queries of a block, K keys up to the end of the block.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mllm_npu.ops.attention_options import ScoreOptions
from mllm_npu.ops.packing import Packing, gradients_to_rows, to_rows, to_tokens

_BLOCK = 128
"""Queries of a block."""

Gradients = tuple[Tensor, Tensor, Tensor]
"""Of queries, keys and values, each of the shape and dtype of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attended:
    """What a whole attention was given and what it gave; its parts go backwards through these.

    Args:
        q_THE: queries.
        k_TJE: keys.
        v_TJE: values.
        out_THE: result.
        lse_TH: logarithm of each query's sum of exponentials, float32.
    """

    q_THE: Tensor
    k_TJE: Tensor
    v_TJE: Tensor
    out_THE: Tensor
    lse_TH: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class CausalPart:
    """Both directions of one way to compute a part.

    Args:
        name: of the way.
        forward: (q_THE, k_TJE, v_TJE, packing, scale) -> result [T, H, E], sums float32 [T, H].
        backward: (gradient, the whole, packing, scale) -> gradients of q, k and v.
        device: torch's type of the devices it runs on; None for all.
        suits: whether it takes (q_THE, k_TJE, v_TJE, packing, options); None takes all.
    """

    name: str
    forward: Callable[[Tensor, Tensor, Tensor, Packing, float], tuple[Tensor, Tensor]]
    backward: Callable[[Tensor, Attended, Packing, float], Gradients]
    device: str | None = None
    suits: Callable[[Tensor, Tensor, Tensor, Packing, ScoreOptions], bool] | None = None


def forward_part(
    q_THE: Tensor, k_TJE: Tensor, v_TJE: Tensor, packing: Packing, scale: float
) -> tuple[Tensor, Tensor]:
    """Attend causally in each sequence; result float32 [T, H, E], sums float32 [T, H]."""
    heads = q_THE.shape[1]
    parts = [_wide(to_rows(part, packing)) for part in (q_THE, k_TJE, v_TJE)]
    outs, sums = [], []
    for q_NLE, k_NLE, v_NLE in _groups(parts, packing, heads):
        out_NLE, lse_NL1 = torch.empty_like(v_NLE), q_NLE.new_empty(*q_NLE.shape[:2], 1)
        for start, end in _blocks(q_NLE.shape[1]):
            scores_NBK = _scores(q_NLE, k_NLE, start, end, scale)
            lse_NL1[:, start:end] = scores_NBK.logsumexp(-1, keepdim=True)
            shares_NBK = (scores_NBK - lse_NL1[:, start:end]).exp()
            out_NLE[:, start:end] = shares_NBK @ v_NLE[:, :end]
        outs.append(_tokens_first(out_NLE, heads))
        sums.append(_tokens_first(lse_NL1, heads))
    out_THE, lse_TH1 = (to_tokens(torch.cat(rows), packing) for rows in (outs, sums))
    return out_THE, lse_TH1[..., 0]


def backward_part(grad_THE: Tensor, whole: Attended, packing: Packing, scale: float) -> Gradients:
    """Gradients through this part of an attention whose result and sums are of the whole."""
    q_THE, k_TJE, v_TJE = whole.q_THE, whole.k_TJE, whole.v_TJE
    heads, key_heads = q_THE.shape[1], k_TJE.shape[1]
    grad_THE = _wide(grad_THE)
    mean_TH1 = (grad_THE * whole.out_THE).sum(-1, keepdim=True)
    inputs = (q_THE, k_TJE, v_TJE, whole.lse_TH[..., None])
    parts = [_wide(to_rows(part, packing)) for part in inputs]
    parts += [gradients_to_rows(part, packing) for part in (grad_THE, mean_TH1)]
    found: tuple[list[Tensor], ...] = ([], [], [])
    for q_NLE, k_NLE, v_NLE, lse_NL1, grad_NLE, mean_NL1 in _groups(parts, packing, heads):
        grad_q, grad_k, grad_v = (torch.zeros_like(part) for part in (q_NLE, k_NLE, v_NLE))
        for start, end in _blocks(q_NLE.shape[1]):
            own = slice(start, end)
            scores_NBK = _scores(q_NLE, k_NLE, start, end, scale)
            shares_NBK = (scores_NBK - lse_NL1[:, own]).exp()
            pulls_NBK = grad_NLE[:, own] @ v_NLE[:, :end].transpose(1, 2)
            moves_NBK = shares_NBK * (pulls_NBK - mean_NL1[:, own]) * scale
            grad_q[:, own] = moves_NBK @ k_NLE[:, :end]
            grad_k[:, :end] += moves_NBK.transpose(1, 2) @ q_NLE[:, own]
            grad_v[:, :end] += shares_NBK.transpose(1, 2) @ grad_NLE[:, own]
        for rows, grad in zip(found, (grad_q, grad_k, grad_v), strict=True):
            rows.append(_tokens_first(grad, heads))
    grads = [to_tokens(torch.cat(rows), packing) for rows in found]
    shared = [
        grad.reshape(-1, key_heads, heads // key_heads, grad.shape[2]).sum(2) for grad in grads[1:]
    ]
    grad_THE, grad_k_TJE, grad_v_TJE = grads[0], *shared
    return grad_THE.to(q_THE.dtype), grad_k_TJE.to(k_TJE.dtype), grad_v_TJE.to(v_TJE.dtype)


def _wide(part: Tensor) -> Tensor:
    return part.to(torch.promote_types(part.dtype, torch.float32))


def _groups(parts: list[Tensor], packing: Packing, heads: int) -> list[list[Tensor]]:
    """Rows of each group, [sum of S * L, heads or key heads, E] -> [N, L, E]."""
    sizes = [group.num_sequences * group.length for group in packing.groups]
    pieces = zip(*(torch.split(part, sizes) for part in parts), strict=True)
    return [
        [_heads_first(piece, group.length, heads) for piece in own]
        for group, own in zip(packing.groups, pieces, strict=True)
    ]


def _heads_first(piece: Tensor, length: int, heads: int) -> Tensor:
    """Rows of one group, each query head with its own keys, [S * L, J, E] -> [N, L, E]."""
    rows = piece.view(-1, length, *piece.shape[1:]).transpose(1, 2)
    shared = rows if rows.shape[1] == heads else rows.repeat_interleave(heads // rows.shape[1], 1)
    return shared.flatten(0, 1).contiguous()


def _tokens_first(part_NLE: Tensor, heads: int) -> Tensor:
    """Rows of one group as they lie in the pack, [N, L, E] -> [S * L, H, E]."""
    return part_NLE.view(-1, heads, *part_NLE.shape[1:]).transpose(1, 2).flatten(0, 1)


def _blocks(length: int) -> list[tuple[int, int]]:
    return [(start, min(start + _BLOCK, length)) for start in range(0, length, _BLOCK)]


def _scores(q_NLE: Tensor, k_NLE: Tensor, start: int, end: int, scale: float) -> Tensor:
    """Scores of a block of queries, what is later than a query hidden, [N, B, K]."""
    scores_NBK = q_NLE[:, start:end] @ k_NLE[:, :end].transpose(1, 2) * scale
    size = end - start
    later_BB = scores_NBK.new_full((size, size), -math.inf).triu(1)
    scores_NBK[:, :, start:] += later_BB
    return scores_NBK


IN_BLOCKS = CausalPart(name="in blocks", forward=forward_part, backward=backward_part)
