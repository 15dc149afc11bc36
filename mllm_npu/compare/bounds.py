"""How far apart two sides may be: from the dtype, and from how many operations lie behind.

    bound = factor(dtype) * eps(dtype) * sqrt(operations)

An operation rounds its operands and its result, and roundings of different operations do not know
each other, so errors grow as the root of their number. An operation is a module that computes: one
with parameters of its own, or without children; attention of torch counts as four. Behind

- an output lie all operations that were finished before it, and its own,
- a gradient all of the forward pass, and those of the backward pass so far,
- what a module gives alone from given inputs (``isolate``) those inside it, and for its gradients
  the same once more.

In float32 two devices add up the terms of a product in different orders, which moves it by about
the root of their number: the factor is that of products of some thousand terms. bfloat16 and
float16 are added up in float32, so there only operands and results are rounded. An accelerator
that multiplies float32 in a shorter format (TF32, HF32) is over the bound of float32.

An update of AdamW divides a gradient by its own size, so that elements near zero, whose sign is
chance, weigh as much as the others: their share goes with the error of the gradient, and the error
of the update with the root of that. Losses and gradient norms are sums in which roundings cancel:
they have the bound of one operation, and of one more for each update.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

FACTORS = {torch.float32: 32.0, torch.bfloat16: 2.0, torch.float16: 2.0, torch.float64: 32.0}
_CHANGE = 2.0
"""Root of how the share of elements near zero goes with the error of a gradient, rounded up."""


class Bounds:
    """Says what relative error (L2) is still rounding.

    Args:
        rtol: one bound for everything instead of those of the dtypes; None takes theirs.
    """

    def __init__(self, *, rtol: float | None = None) -> None:
        self.rtol = rtol

    def of(self, dtypes: Iterable[torch.dtype], operations: int) -> float:
        """The bound where values have passed through some dtypes; the coarsest counts.

        Args:
            dtypes: of the values, the parameters and what both sides compute in; whole numbers
                among them do not count, and have the bound 0 by themselves.
            operations: that lie behind.
        """
        coarsest = coarsest_of(dtypes)
        if coarsest is None:
            return 0.0
        if self.rtol is not None:
            return self.rtol
        eps = torch.finfo(coarsest).eps
        return FACTORS.get(coarsest, 2.0) * eps * math.sqrt(max(1, operations))

    def of_change(self, gradient: float, updates: int) -> float:
        """The bound of what some updates have changed; at 1 nothing is left in common.

        Args:
            gradient: bound of the gradients.
            updates: how many.
        """
        if self.rtol is not None:
            return self.rtol
        return min(1.0, _CHANGE * math.sqrt(gradient * max(1, updates)))

    def of_numbers(self, dtypes: Iterable[torch.dtype], updates: int) -> float:
        """The bound of loss and gradient norm.

        Args:
            dtypes: what both sides compute in.
            updates: made so far, this one included.
        """
        if self.rtol is not None:
            return self.rtol
        return self.of(dtypes, 1) * (1 + updates)


def coarsest_of(dtypes: Iterable[torch.dtype]) -> torch.dtype | None:
    """The one of some dtypes whose numbers lie farthest apart; None where all are whole."""
    real = [d.to_real() for d in dtypes if d.is_floating_point or d.is_complex]
    return max(real, key=lambda dtype: torch.finfo(dtype).eps, default=None)
