"""Whether two models differ on the same examples: exact McNemar, permutation, paired bootstrap.

Examples count as independent of each other. Where several of them share a picture, the p-values and
intervals here are too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mllm_npu.evaluate.statistics import mean_interval

_MOST_EXACT = 16
"""So many differences have 65,536 ways to lie, which are all looked at."""

_DRAWS = 10_000
_DRAWS_AT_ONCE = 100
_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How far the scores of B lie above those of A on the same examples.

    Args:
        mean: of B minus A.
        interval: both ends of its 95 % bootstrap interval, examples drawn in pairs.
        p_value: how likely a difference of at least this size is where A and B are alike.
        test: which one says so.
        num_higher: examples on which B scores higher.
        num_lower: examples on which B scores lower.
    """

    mean: float
    interval: tuple[float, float]
    p_value: float
    test: str
    num_higher: int
    num_lower: int


def compare_scores(scores_a: Sequence[float], scores_b: Sequence[float]) -> Difference:
    """The difference of paired scores; at least one pair.

    Args:
        scores_a: of A.
        scores_b: of B on the same examples, in the same order.
    """
    differences = [b - a for a, b in zip(scores_a, scores_b, strict=True)]
    higher = sum(difference > 0 for difference in differences)
    lower = sum(difference < 0 for difference in differences)
    if all(score in (0, 1) for score in (*scores_a, *scores_b)):
        test, p_value = "exact McNemar", mcnemar_p(higher, lower)
    else:
        test, p_value = sign_flip_p(differences)
    low, high = mean_interval(differences)
    return Difference(
        mean=round(math.fsum(differences) / len(differences), 6),
        interval=(round(low, 6), round(high, 6)),
        p_value=p_value,
        test=test,
        num_higher=higher,
        num_lower=lower,
    )


def mcnemar_p(num_higher: int, num_lower: int) -> float:
    """Two-sided exact p-value of changes in both directions, each as likely as the other.

    Source: McNemar 1947, with the binomial distribution instead of chi-squared.
    """
    total = num_higher + num_lower
    term, tail = 1, 0
    for number in range(min(num_higher, num_lower) + 1):
        tail += term
        term = term * (total - number) // (number + 1)
    return min(1.0, 2 * tail / 2**total)


def sign_flip_p(differences: Sequence[float]) -> tuple[str, float]:
    """Two-sided p-value of the mean difference where each sign is as likely as the other.

    Every way to set the signs is looked at where there are few of them, else 10,000 drawn ones with
    a fixed seed.

    Returns:
        The name of the test, and the p-value.

    Source: Fisher's randomisation test for pairs; the drawn ones count the observed way as well
        (Phipson and Smyth 2010).
    """
    values = np.asarray([value for value in differences if value], dtype=np.float64)
    # Sums of the same numbers in another order differ in their last bits.
    observed = abs(values.sum()) - 1e-9 * np.abs(values).sum()
    if len(values) <= _MOST_EXACT:
        sums = np.zeros(1)
        for value in values:
            sums = np.concatenate([sums + value, sums - value])
        return "exact permutation", float((np.abs(sums) >= observed).mean())
    found = sum(int((np.abs(sums) >= observed).sum()) for sums in _drawn_sums(values))
    return f"permutation, {_DRAWS:,} draws", (1 + found) / (1 + _DRAWS)


def _drawn_sums(values: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    random = np.random.default_rng(_SEED)
    shape = (_DRAWS_AT_ONCE, len(values))
    return [
        (2.0 * random.integers(0, 2, shape, dtype=np.int8) - 1) @ values
        for _ in range(_DRAWS // _DRAWS_AT_ONCE)
    ]
