"""What every suite is given: who answers, on which world, how, and who is told."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from mllm_npu.evaluate.runner import Meter
from mllm_npu.evaluate.suite_result import SuiteResult
from mllm_npu.inference.engine import Engine, GenerationOptions


@dataclass(kw_only=True)
class WorldSuite(ABC):
    """The figures of one world.

    Args:
        engine: answers and draws.
        world: folder of the world.
        options: how replies are made; the guidance of pictures is chosen by the suite.
        limit: examples per task; None takes all.
        meter: is told what is done.
    """

    engine: Engine
    world: Path
    options: GenerationOptions
    limit: int | None
    meter: Meter

    @abstractmethod
    def __post_init__(self) -> None:
        """Read what the judge of the world needs."""

    @abstractmethod
    def measure(self) -> SuiteResult:
        """Choose guidance on the validation split, then measure on the held-out one."""
