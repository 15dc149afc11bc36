"""Processor seconds as they would be if the machine were always equally fast.

A processor that is shared with others is now fast, now slow, for seconds or for minutes. So the
step of a small model is timed again and again beside everything that is measured, and what is
measured counts by it.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import deque

import torch

from mllm_npu.plan.trial_model import Size, Trial, processor_or_wall

_SIZE = Size(width=128, blocks=2, tokens=256)
_WARM_UP, _LOOKS, _KEPT = 3, 15, 3
_EVERY = 0.25
"""Seconds after which a look at the machine is no longer new."""


class SteadyClock:
    """A stopwatch.

    Args:
        device: where the work is done. Accelerators are not shared, so there it is the clock on the
            wall.
        usual: seconds of the small step at the speed that counts; None finds them now.

    Attributes:
        usual: those seconds.
    """

    def __init__(self, device: torch.device, *, usual: float | None = None) -> None:
        self.device = device
        self._trial = Trial(_SIZE, device) if device.type == "cpu" else None
        self._looks: deque[float] = deque(maxlen=_KEPT)
        self._looked = -math.inf
        self._begin = 0.0
        self._factor = 1.0
        for _ in range(_WARM_UP):
            self._work()
        if usual is None:
            usual = statistics.median(self._work() for _ in range(_LOOKS))
        self.usual = usual

    def factor(self) -> float:
        """By which seconds that are measured now count; looks at the machine if that is due."""
        if self._trial is None:
            return 1.0
        if time.perf_counter() - self._looked >= _EVERY:
            self._looks.append(self._work())
            self._looked = time.perf_counter()
        return self.usual / statistics.median(self._looks)

    def start(self) -> None:
        """Begin to measure."""
        self._factor = self.factor()
        self._begin = processor_or_wall(self.device)

    def read(self) -> float:
        """Seconds since the start."""
        return (processor_or_wall(self.device) - self._begin) * self._factor

    def _work(self) -> float:
        return sum(self._trial.step().values()) if self._trial is not None else 1.0
