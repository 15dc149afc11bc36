"""What takes the metrics of a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

FAULT = "fault"
"""Name of the event of an update that went wrong."""
ROLLBACK = "rollback"
"""Name of the event of a return to the last checkpoint."""


class Tracker(ABC):
    """Takes numbers, pictures and events of a run; the main rank alone uses one.

    Shape letters: H height, W width.
    """

    @abstractmethod
    def start(self, step: int, config: str = "") -> None:
        """Begin, or go on after ``step`` updates; what later steps had logged is taken back.

        Args:
            step: updates done.
            config: of the run, as YAML.

        Raises:
            ConfigError: a service does not let the run in.
            OSError: a file cannot be written; so do the other methods.
        """

    @abstractmethod
    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Take numbers.

        Args:
            step: updates done.
            values: numbers, or dictionaries of numbers.
        """

    @abstractmethod
    def log_picture(self, step: int, name: str, picture_3HW: Tensor) -> None:
        """Take a picture, uint8."""

    @abstractmethod
    def log_event(self, step: int, name: str, what: Mapping[str, Any]) -> None:
        """Take what happened at a step: numbers and texts."""

    @abstractmethod
    def rewind(self, step: int) -> None:
        """Take back, as far as that is possible, what steps after ``step`` have logged."""

    @abstractmethod
    def close(self) -> None:
        """Write what is still to be written; may be called twice, or without a start."""


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Names and numbers of nested dictionaries, ``{"a": {"b": 1}}`` -> ``("a/b", 1)``."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}/")
        else:
            yield prefix + name, float(value)
