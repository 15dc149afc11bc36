"""Distribution: how often each whole number was seen; exact, and small where few values differ."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


class Distribution:
    """Counts whole numbers, and says where they lie.

    Attributes:
        counts: how often each number was seen.
    """

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self.counts: dict[int, int] = dict(counts or {})

    def add(self, values: NDArray[np.int64]) -> None:
        """Count numbers, int64 of any shape."""
        found, times = np.unique(values, return_counts=True)
        for value, count in zip(found.tolist(), times.tolist(), strict=True):
            self.counts[value] = self.counts.get(value, 0) + count

    @property
    def num(self) -> int:
        """Numbers that were counted."""
        return sum(self.counts.values())

    @property
    def total(self) -> int:
        """Their sum."""
        return sum(value * count for value, count in self.counts.items())

    @property
    def mean(self) -> float:
        """Their mean; 0 without any."""
        return self.total / max(self.num, 1)

    @property
    def std(self) -> float:
        """Their standard deviation; 0 without any."""
        mean = self.mean
        squares = sum(count * (value - mean) ** 2 for value, count in self.counts.items())
        return math.sqrt(squares / max(self.num, 1))

    @property
    def max(self) -> int:
        """The largest; 0 without any."""
        return max(self.counts, default=0)

    def percentile(self, share: float) -> int:
        """The smallest number that at least this share (0..1) does not exceed; 0 without any."""
        wanted, seen = share * self.num, 0
        for value in sorted(self.counts):
            seen += self.counts[value]
            if seen >= wanted:
                return value
        return self.max

    def to_json(self) -> dict[str, float]:
        """Mean, median, 95th percentile and largest."""
        return {
            "mean": round(self.mean, 3),
            "p50": self.percentile(0.5),
            "p95": self.percentile(0.95),
            "max": self.max,
        }
