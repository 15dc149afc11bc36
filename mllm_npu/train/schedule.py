"""How the learning rate goes: a factor that is a pure function of the step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from mllm_npu.errors import ConfigError


class Schedule(ABC):
    """Factor on every learning rate."""

    @abstractmethod
    def factor(self, step: int, max_steps: int) -> float:
        """Factor of the update after ``step`` done ones; constant from ``max_steps`` on."""


class Constant(Schedule):
    """Linear warm-up, then 1.

    Args:
        warmup_steps: updates until the factor is 1.
    """

    def __init__(self, *, warmup_steps: int = 0) -> None:
        _check(warmup_steps, 1.0)
        self.warmup_steps = warmup_steps

    def factor(self, step: int, max_steps: int) -> float:
        """See Schedule."""
        return _warm_up(step, self.warmup_steps)


class Cosine(Schedule):
    """Linear warm-up, then half a cosine from 1 down to the floor.

    Args:
        warmup_steps: updates until the factor is 1.
        floor: factor at and after the end.
    """

    def __init__(self, *, warmup_steps: int = 50, floor: float = 0.02) -> None:
        _check(warmup_steps, floor)
        self.warmup_steps = warmup_steps
        self.floor = floor

    def factor(self, step: int, max_steps: int) -> float:
        """See Schedule."""
        progress = _progress(step, self.warmup_steps, max_steps)
        fall = 0.5 * (1 + math.cos(math.pi * progress))
        return _warm_up(step, self.warmup_steps) * (self.floor + (1 - self.floor) * fall)


class Linear(Schedule):
    """Linear warm-up, then a straight line from 1 down to the floor.

    Args:
        warmup_steps: updates until the factor is 1.
        floor: factor at and after the end.
    """

    def __init__(self, *, warmup_steps: int = 50, floor: float = 0.0) -> None:
        _check(warmup_steps, floor)
        self.warmup_steps = warmup_steps
        self.floor = floor

    def factor(self, step: int, max_steps: int) -> float:
        """See Schedule."""
        progress = _progress(step, self.warmup_steps, max_steps)
        return _warm_up(step, self.warmup_steps) * (1 - (1 - self.floor) * progress)


def _warm_up(step: int, warmup_steps: int) -> float:
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0


def _progress(step: int, warmup_steps: int, max_steps: int) -> float:
    length = max(1, max_steps - warmup_steps)
    return min(1.0, max(0.0, (step - warmup_steps) / length))


def _check(warmup_steps: int, floor: float) -> None:
    if warmup_steps < 0 or not 0 <= floor <= 1:
        raise ConfigError(
            f"A schedule with warmup_steps={warmup_steps} and floor={floor} was asked for. "
            "Use warmup_steps >= 0 and a floor from 0 to 1."
        )
