"""Measure how far apart two tensors are, and say what keeps them from being compared."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_TINY = 1e-300
"""Keeps a quotient of zeros from being none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How far a tensor of side B is from that of side A.

    Args:
        relative: norm of the difference over the norm of A's (L2); of whole numbers the share of
            elements that differ. Infinite where the two cannot be compared.
        max_absolute: largest difference of an element.
        max_relative: largest difference of an element over its size in A, or over the root mean
            square of A's where the element is smaller than that.
        cosine: of the angle between the two; 1 where both are zero.
        problem: why they cannot be compared; empty where they can.
        is_broken: whether an element is no number, or infinite on one side alone.
    """

    relative: float
    max_absolute: float = math.nan
    max_relative: float = math.nan
    cosine: float = math.nan
    problem: str = ""
    is_broken: bool = False


def measure(a: Tensor, b: Tensor, *, floor: float = 0.0) -> Difference:
    """Compare on the host.

    Args:
        a: of side A, on the host.
        b: of side B, on any device.
        floor: norm that is taken for A's where that is smaller: what A's elements were summed up
            from, when they may have cancelled each other.
    """
    if a.shape != b.shape:
        return Difference(
            relative=math.inf, problem=f"shape {list(a.shape)} on A, {list(b.shape)} on B"
        )
    if a.numel() == 0:
        return Difference(relative=0.0, max_absolute=0.0, max_relative=0.0, cosine=1.0)
    b = b.detach().to("cpu")
    if _is_whole(a) != _is_whole(b):
        return Difference(relative=math.inf, problem=f"{_name(a)} on A, {_name(b)} on B")
    if _is_whole(a):
        return _measure_whole(a, b)
    first, second = _wide(a), _wide(b)
    broken = _describe_broken(first, second)
    if broken:
        return Difference(relative=math.inf, problem=broken, is_broken=True)
    if bool(first.isinf().any()):  # the same ones on both sides: a mask
        first, second = (part.masked_fill(part.isinf(), 0) for part in (first, second))
    return _measure_real(first, second, floor)


def _measure_real(a: Tensor, b: Tensor, floor: float) -> Difference:
    apart = b - a
    norm_a, norm_b, norm = (_norm(part) for part in (a, b, apart))
    typical = norm_a / math.sqrt(a.numel())
    sizes = a.abs().clamp_(min=typical)
    largest = float(apart.abs().max())
    cosine = float(torch.dot(a.double(), b.double())) / max(norm_a * norm_b, _TINY)
    return Difference(
        relative=_over(norm, max(norm_a, floor)),
        max_absolute=largest,
        max_relative=float((apart.abs() / sizes).nan_to_num(0.0, math.inf).max()),
        cosine=1.0 if norm == 0 else max(-1.0, min(1.0, cosine)),
    )


def _measure_whole(a: Tensor, b: Tensor) -> Difference:
    differs = a != b
    apart = (b.double() - a.double()).abs()
    return Difference(
        relative=float(differs.double().mean()),
        max_absolute=float(apart.max()),
        max_relative=float((apart / a.double().abs().clamp_(min=1)).max()),
        cosine=math.nan if bool(differs.any()) else 1.0,
    )


def _describe_broken(a: Tensor, b: Tensor) -> str:
    """Where numbers are missing; infinities of one sign at one place on both sides are none."""
    bad_a, bad_b = ~a.isfinite(), ~b.isfinite()
    if not bool((bad_a | bad_b).any()):
        return ""
    same = a.isinf() & (a == b)
    count_a, count_b = int((bad_a & ~same).sum()), int((bad_b & ~same).sum())
    if not count_a and not count_b:
        return ""
    where = [f"{count} on {side}" for side, count in (("A", count_a), ("B", count_b)) if count]
    return f"not finite: {' and '.join(where)} of {a.numel()} elements"


def _is_whole(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex())


def _wide(tensor: Tensor) -> Tensor:
    """Real numbers in a row, in float32 or wider."""
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return (real if real.dtype is torch.float64 else real.float()).flatten()


def _norm(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64))


def _over(part: float, whole: float) -> float:
    if part == 0:
        return 0.0
    return part / whole if whole > 0 else math.inf


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
