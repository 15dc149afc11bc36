"""Sum the cross entropy of chosen hidden states without holding all logits of a big vocabulary.

Shape letters: N chosen tokens, D width, W vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

MAX_LOGITS = 2**25
"""Logits held at once, 128 MiB in float32; what is more goes in chunks that are computed again."""


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
    rows = max(1, max_logits // vocab_size)
    if hidden_ND.shape[0] <= rows:
        losses_N = _losses(hidden_ND, targets_N, to_logits)
        return losses_N.sum(), losses_N.detach()
    pairs = zip(torch.split(hidden_ND, rows), torch.split(targets_N, rows), strict=True)
    chunks = [checkpoint(_losses, *pair, to_logits, use_reentrant=False) for pair in pairs]
    losses_N = torch.cat(chunks)
    return losses_N.sum(), losses_N.detach()


def cross_entropy_reference(
    hidden_ND: Tensor, targets_N: Tensor, to_logits: Callable[[Tensor], Tensor]
) -> Tensor:
    """Say slowly what `cross_entropy` sums, float32 [N]."""
    log_probabilities = to_logits(hidden_ND).float().log_softmax(-1)
    return -log_probabilities.gather(1, targets_N[:, None])[:, 0]


def _losses(hidden_ND: Tensor, targets_N: Tensor, to_logits: Callable[[Tensor], Tensor]) -> Tensor:
    return F.cross_entropy(to_logits(hidden_ND).float(), targets_N, reduction="none")
