"""How far two sets of pictures are apart by their features: FID and KID.

Shape letters: N M features of two sets, V their width.
"""

from __future__ import annotations

import math

import numpy as np

from mllm_npu.errors import DataError
from mllm_npu.evaluate.feature_statistics import FeatureStatistics, Matrix, Rows

SUBSET_SIZE = 1000
NUM_SUBSETS = 100
"""By which KID is usually estimated."""

_SEED = 0
_PAIRS = 1 << 22
"""Kernel values that are in memory at once, 32 MiB."""


def num_needed(width: int) -> int:
    """Pictures from which a covariance of features has full rank: one more than their width."""
    return width + 1


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """FID: |m - n|^2 + tr(A + B - 2 (A B)^(1/2)) of the means and covariances of two sets.

    It is biased upwards by few pictures: compare values of equal numbers only. The trace of the
    root is the sum of the singular values of F'G, where FF' = A and GG' = B: no root is taken of a
    product that is singular or not symmetric, and no imaginary part has to be dropped.

    Raises:
        DataError: a set is too small, or the widths differ.

    Source: GANs trained by a two time-scale update rule (Heusel et al. 2017).
    """
    _check_widths(a.width, b.width)
    needed = num_needed(a.width)
    if min(a.num, b.num) < needed:
        raise DataError(
            f"FID was asked for between {a.num} and {b.num} pictures; features of width {a.width} "
            f"need at least {needed} on each side. Give more pictures, or measure KID."
        )
    first_VV, second_VV = a.covariance(), b.covariance()
    singular = np.linalg.svd(_factor(first_VV).T @ _factor(second_VV), compute_uv=False)
    between = float(np.sum((a.mean_V - b.mean_V) ** 2))
    spread = float(np.trace(first_VV) + np.trace(second_VV))
    return max(0.0, between + spread - 2 * float(singular.sum()))


def kernel_distance(
    a_NV: Rows, b_MV: Rows, *, subset_size: int = SUBSET_SIZE, num_subsets: int = NUM_SUBSETS
) -> tuple[float, float | None]:
    """KID: squared maximum mean discrepancy with the kernel (x'y / V + 1)^3, without bias.

    Args:
        a_NV: features of one set.
        b_MV: features of the other set.
        subset_size: features of a subset of each set, drawn without replacement.
        num_subsets: estimates that are averaged.

    Returns:
        Mean of the estimates and their standard deviation. Where a set has no more features than a
        subset, both sets are taken whole, once, and there is no deviation. Without bias means that
        it can be below 0.

    Raises:
        DataError: a set has fewer than two features, or the widths differ.

    Source: Demystifying MMD GANs (Binkowski et al. 2018).
    """
    _check_widths(a_NV.shape[1], b_MV.shape[1])
    fewest = min(len(a_NV), len(b_MV))
    if fewest < 2:
        raise DataError(
            f"KID was asked for between {len(a_NV)} and {len(b_MV)} pictures; it needs at least "
            "2 on each side. Give more pictures."
        )
    first_NV, second_MV = a_NV.astype(np.float64), b_MV.astype(np.float64)
    if fewest <= subset_size:
        return _squared_discrepancy(first_NV, second_MV), None
    random = np.random.default_rng(_SEED)
    found = [
        _squared_discrepancy(
            first_NV[random.choice(len(first_NV), subset_size, replace=False)],
            second_MV[random.choice(len(second_MV), subset_size, replace=False)],
        )
        for _ in range(num_subsets)
    ]
    return float(np.mean(found)), float(np.std(found))


def _check_widths(first: int, second: int) -> None:
    if first != second:
        raise DataError(
            f"A distance was asked for between features of widths {first} and {second}. "
            "Use one encoder for both sets."
        )


def _factor(covariance_VV: Matrix) -> Matrix:
    """Columns whose outer products with themselves add up to the covariance."""
    values_V, vectors_VV = np.linalg.eigh(covariance_VV)
    return vectors_VV * np.sqrt(values_V.clip(min=0))


def _squared_discrepancy(a_NV: Matrix, b_MV: Matrix) -> float:
    num_a, num_b = len(a_NV), len(b_MV)
    value = _sum_of_others(a_NV) / (num_a * (num_a - 1))
    value += _sum_of_others(b_MV) / (num_b * (num_b - 1))
    return value - 2 * _kernel_sum(a_NV, b_MV) / (num_a * num_b)


def _sum_of_others(a_NV: Matrix) -> float:
    """Kernel summed over the pairs of different features; a feature with itself makes the bias."""
    own_N = np.einsum("nv,nv->n", a_NV, a_NV)
    return _kernel_sum(a_NV, a_NV) - float(_kernel(own_N, a_NV.shape[1]).sum())


def _kernel_sum(a_NV: Matrix, b_MV: Matrix) -> float:
    """Kernel summed over all pairs, piece by piece."""
    step, width = max(1, _PAIRS // len(b_MV)), a_NV.shape[1]
    starts = range(0, len(a_NV), step)
    return math.fsum(
        float(_kernel(a_NV[start : start + step] @ b_MV.T, width).sum()) for start in starts
    )


def _kernel(products: Matrix, width: int) -> Matrix:
    # As a power of numpy's it would take two thirds of the time of all.
    values = products / width + 1
    return values * values * values
