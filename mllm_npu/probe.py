"""What is measured now and then while a model trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from mllm_npu.distributed.placed import Placed
from mllm_npu.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a probe has found.

    Args:
        values: numbers, or dictionaries of numbers.
        pictures: grids to look at by name, uint8 [3, H, W].
    """

    values: Mapping[str, Any]
    pictures: Mapping[str, Tensor] = field(default_factory=dict)


class Probe(ABC):
    """Measures the live model every so many updates.

    Args:
        every: updates between two measurements; one more is made at the end.

    Raises:
        ConfigError: a number below 1.
    """

    def __init__(self, *, every: int) -> None:
        if every < 1:
            raise ConfigError(f"A probe was asked for every={every} updates. Give 1 or more.")
        self.every = every

    @abstractmethod
    def measure(self, placed: Placed) -> Measured:
        """Measure; every rank calls it in step, and gets the same values.

        Args:
            placed: the objective in its place; its mode and values are as before afterwards.
        """
