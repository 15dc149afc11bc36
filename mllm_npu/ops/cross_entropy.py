"""Sum the cross entropy of chosen hidden states without holding all logits of a big vocabulary.

Shape letters: N chosen tokens, D width, W vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mllm_npu.ops.ways import Op, Way, device_of

MAX_LOGITS = 2**27
"""Logits held at once, 256 MiB in bfloat16, and their gradients beside them; what is more goes in
chunks that are computed again."""
_WIDENED = 2**20
"""Logits held in float32 at once on a CPU, few enough to stay in its cache."""
_WIDENED_BY_ACCELERATORS = 2**26
"""The same on any other device, 256 MiB: small pieces would end sooner than the next is started."""


def cross_entropy(
    hidden_ND: Tensor,
    targets_N: Tensor,
    to_logits: Callable[[Tensor], Tensor],
    *,
    vocab_size: int,
    max_logits: int = MAX_LOGITS,
) -> tuple[Tensor, Tensor]:
    """Score hidden states and compare with the targets, in float32.

    Args:
        hidden_ND: states that predict the targets; N may be 0.
        targets_N: token ids, int64.
        to_logits: the language model's head, [n, D] -> [n, W].
        vocab_size: W.
        max_logits: logits held at once; beyond it chunks are recomputed in the backward pass.

    Returns:
        The sum of the losses, float32 0-d, and the detached loss of each target, float32 [N].
    """
    return _CROSS_ENTROPY(
        hidden_ND, targets_N, to_logits, vocab_size=vocab_size, max_logits=max_logits
    )


def cross_entropy_reference(
    hidden_ND: Tensor, targets_N: Tensor, to_logits: Callable[[Tensor], Tensor]
) -> Tensor:
    """Say slowly what `cross_entropy` sums, float32 [N]."""
    log_probabilities = to_logits(hidden_ND).float().log_softmax(-1)
    return -log_probabilities.gather(1, targets_N[:, None])[:, 0]


def _sum_by_reference(
    hidden_ND: Tensor,
    targets_N: Tensor,
    to_logits: Callable[[Tensor], Tensor],
    *,
    vocab_size: int,
    max_logits: int,
) -> tuple[Tensor, Tensor]:
    losses_N = cross_entropy_reference(hidden_ND, targets_N, to_logits)
    return losses_N.sum(), losses_N.detach()


def _sum_in_chunks(
    hidden_ND: Tensor,
    targets_N: Tensor,
    to_logits: Callable[[Tensor], Tensor],
    *,
    vocab_size: int,
    max_logits: int,
) -> tuple[Tensor, Tensor]:
    rows = max(1, max_logits // vocab_size)
    if hidden_ND.shape[0] <= rows:
        losses_N = _losses(hidden_ND, targets_N, to_logits)
        return losses_N.sum(), losses_N.detach()
    pairs = zip(torch.split(hidden_ND, rows), torch.split(targets_N, rows), strict=True)
    chunks = [checkpoint(_losses, *pair, to_logits, use_reentrant=False) for pair in pairs]
    losses_N = torch.cat(chunks)
    return losses_N.sum(), losses_N.detach()


def _losses(hidden_ND: Tensor, targets_N: Tensor, to_logits: Callable[[Tensor], Tensor]) -> Tensor:
    return _Losses.apply(to_logits(hidden_ND), targets_N)  # type: ignore[no-untyped-call]


class _Losses(torch.autograd.Function):
    """Cross entropy in float32, some rows at a time, so that no float32 copy of logits exists."""

    @staticmethod
    def forward(ctx: Any, logits_NW: Tensor, targets_N: Tensor) -> Tensor:
        ctx.save_for_backward(logits_NW, targets_N)
        losses = [
            F.cross_entropy(logits.float(), targets, reduction="none")
            for logits, targets in zip(*_split(logits_NW, targets_N), strict=True)
        ]
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor, None]:
        logits_NW, targets_N = ctx.saved_tensors
        grad_NW = torch.empty_like(logits_NW)
        parts = _split(logits_NW, targets_N, grad_N.float(), grad_NW)
        for logits, targets, grad, out in zip(*parts, strict=True):
            shares = logits.softmax(-1, dtype=torch.float32)
            places = targets[:, None]
            shares.scatter_(1, places, shares.gather(1, places) - 1)
            out.copy_(shares.mul_(grad[:, None]))
        return grad_NW, None


def _split(logits_NW: Tensor, *others: Tensor) -> list[tuple[Tensor, ...]]:
    at_once = _WIDENED if device_of(logits_NW) == "cpu" else _WIDENED_BY_ACCELERATORS
    rows = max(1, at_once // logits_NW.shape[-1])
    return [torch.split(part, rows) for part in (logits_NW, *others)]


_CROSS_ENTROPY = Op(
    "cross_entropy",
    reference=_sum_by_reference,
    ways=(Way(name="in chunks", run=_sum_in_chunks),),
)
