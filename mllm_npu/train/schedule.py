"""How the learning rate goes: a factor that is a pure function of the step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Literal

from mllm_npu.errors import ConfigError

_FALLS: Mapping[str, Callable[[float], float]] = {
    "linear": lambda progress: 1 - progress,
    "sqrt": lambda progress: 1 - math.sqrt(progress),
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
}
"""From 1 at the beginning of a fall to 0 at its end."""


class Schedule(ABC):
    """Factor on every learning rate; without state, so that a resumed run goes on as it was."""

    @abstractmethod
    def factor(self, step: int, max_steps: int) -> float:
        """Factor of the update after ``step`` done ones; constant from ``max_steps`` on."""


class Constant(Schedule):
    """Linear warm-up, then 1.

    Args:
        warmup_steps: updates until the factor is 1.
        floor: of no effect, since nothing falls; taken so that each schedule can stand in for
            another.
    """

    def __init__(self, *, warmup_steps: int = 0, floor: float = 1.0) -> None:
        _check(warmup_steps, floor)
        self.warmup_steps = warmup_steps

    def factor(self, step: int, max_steps: int) -> float:
        """See Schedule."""
        return _warm_up(min(step, max_steps), self.warmup_steps)


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
        fall = _fall("cosine", step, self.warmup_steps, max_steps)
        return _between(self.floor, step, max_steps, self.warmup_steps, fall)


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
        fall = _fall("linear", step, self.warmup_steps, max_steps)
        return _between(self.floor, step, max_steps, self.warmup_steps, fall)


class WarmupStableDecay(Schedule):
    """Linear warm-up, then 1, then a fall to the floor at the end of the run.

    Up to the fall the factor does not depend on the length of the run, so that a longer run begins
    as a shorter one did.

    Args:
        warmup_steps: updates until the factor is 1.
        decay_share: share of the run in which it falls, 0..1.
        decay_steps: updates in which it falls; None takes ``decay_share``.
        decay_shape: ``linear``, ``sqrt`` (1 minus the square root of the progress: steep at first)
            or ``cosine``.
        floor: factor at and after the end.

    Source: MiniCPM (Hu et al. 2024); Hägele et al. 2024 for the square root.
    """

    def __init__(
        self,
        *,
        warmup_steps: int = 50,
        decay_share: float = 0.2,
        decay_steps: int | None = None,
        decay_shape: Literal["linear", "sqrt", "cosine"] = "sqrt",
        floor: float = 0.0,
    ) -> None:
        _check(warmup_steps, floor)
        if not 0 <= decay_share <= 1 or (decay_steps or 0) < 0 or decay_shape not in _FALLS:
            raise ConfigError(
                f"A schedule with decay_share={decay_share}, decay_steps={decay_steps} and "
                f"decay_shape={decay_shape!r} was asked for. Use a share from 0 to 1, steps from 0 "
                f"(or null), and one of {', '.join(_FALLS)}."
            )
        self.warmup_steps = warmup_steps
        self.decay_share = decay_share
        self.decay_steps = decay_steps
        self.decay_shape = decay_shape
        self.floor = floor

    def factor(self, step: int, max_steps: int) -> float:
        """See Schedule."""
        steps = self.decay_steps
        steps = round(self.decay_share * max_steps) if steps is None else steps
        fall = _fall(self.decay_shape, step, max(self.warmup_steps, max_steps - steps), max_steps)
        return _between(self.floor, step, max_steps, self.warmup_steps, fall)


def _between(floor: float, step: int, max_steps: int, warmup_steps: int, fall: float) -> float:
    """Warm-up times the height of a fall that ends at the floor, and the floor behind the end."""
    if step >= max_steps:
        return floor
    return _warm_up(step, warmup_steps) * (floor + (1 - floor) * fall)


def _warm_up(step: int, warmup_steps: int) -> float:
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0


def _fall(shape: str, step: int, begin: int, end: int) -> float:
    """Height of a fall from 1 at ``begin`` to 0 at ``end``."""
    if step <= begin:
        return 1.0
    return _FALLS[shape](min(1.0, (step - begin) / (end - begin)) if end > begin else 1.0)


def _check(warmup_steps: int, floor: float) -> None:
    if warmup_steps < 0 or not 0 <= floor <= 1:
        raise ConfigError(
            f"A schedule with warmup_steps={warmup_steps} and floor={floor} was asked for. "
            "Use warmup_steps >= 0 and a floor from 0 to 1."
        )
