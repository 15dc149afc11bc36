"""Say how scores become shares and what a query sees: one value that every way is given.

Shape letters: B rows, H query heads, Q queries, K keys.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreOptions:
    """How scores become shares of the values.

    Args:
        scale: factor of the scores.
        dropout: share of attention weights dropped.
        softcap: scores are squashed to +-softcap by tanh; None leaves them.
    """

    scale: float
    dropout: float = 0.0
    softcap: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowOptions(ScoreOptions):
    """Attention in dense rows.

    Args:
        mask: bool, True where a query sees a key, broadcastable to [B, H, Q, K]. Excludes
            ``causal``.
        causal: query i sees keys 0..i; needs Q == K.
    """

    mask: Tensor | None
    causal: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BandOptions(ScoreOptions):
    """Attention in pairs of packed sequences, each query in a band of keys aligned at the end.

    Args:
        left: keys before its own place that a query sees; None sees all.
        right: keys after its own place that a query sees, 0 is causal; None sees all.
    """

    left: int | None
    right: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PackOptions(ScoreOptions):
    """Causal attention inside each sequence of a pack.

    Args:
        window: a token sees this many tokens, itself included; None sees all before it.
    """

    window: int | None = None

    def limit(self, length: int) -> int | None:
        """The window; None where it hides nothing in sequences of up to ``length`` tokens."""
        return None if self.window is None or self.window >= length else self.window

    def band(self, length: int) -> BandOptions:
        """The same for sequences of up to ``length`` tokens, said as a band."""
        window = self.limit(length)
        return BandOptions(
            left=None if window is None else window - 1,
            right=0,
            scale=self.scale,
            dropout=self.dropout,
            softcap=self.softcap,
        )
