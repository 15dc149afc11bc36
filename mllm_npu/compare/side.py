"""What stands on a side of a comparison: a device, a way of operations, a folder, or a record."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mllm_npu.device.platform import PLATFORMS, pick_device
from mllm_npu.errors import ConfigError

SideKind = Literal["device", "way", "folder", "record"]

WAYS = ("fused", "reference")
"""Operations as a run computes them, and all of them by their slow references."""
RECORD_ENDING = ".safetensors"

_BETWEEN = re.compile(r",(?=[~+]*[\w@./]+=)")
"""The comma in front of a setting, and not one inside its value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A side as it was asked for.

    Args:
        word: its device, way, folder or file.
        kind: which of them.
        settings: that hold for this side alone, as ``key=value``.
    """

    word: str
    kind: SideKind
    settings: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """Of a folder or a record."""
        return Path(self.word)

    def __str__(self) -> str:
        return ",".join([self.word, *self.settings])


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Sides and Hydra overrides, however they are mixed; an override has a ``=``.

    A side may have settings of its own: ``cpu,parallel.compute_dtype=bfloat16``.
    """
    sides: list[str] = []
    overrides: list[str] = []
    for word in words:
        is_override = "=" in word.split(",")[0] or word.startswith("~")
        (overrides if is_override else sides).append(word)
    return sides, overrides


def read_side(word: str) -> Side:
    """What a word means.

    Raises:
        ConfigError: it means nothing.
        DeviceError: a device that this machine does not have.
    """
    name, *settings = _BETWEEN.split(word)
    return Side(word=name, kind=_kind_of(name), settings=tuple(settings))


def _kind_of(name: str) -> SideKind:
    devices = [platform.name for platform in PLATFORMS]
    if name in devices:
        pick_device(name)
        return "device"
    if name in WAYS:
        return "way"
    path = Path(name)
    if path.is_file() and path.suffix == RECORD_ENDING:
        return "record"
    if path.is_dir():
        return "folder"
    if path.is_file():
        raise ConfigError(
            f"{name} was asked for as a side, and is a file. Give one that --record has written "
            f"(*{RECORD_ENDING}), or the folder it lies in."
        )
    raise ConfigError(
        f"{name!r} was asked for as a side; it is no device ({', '.join(devices)}), no way of "
        f"operations ({', '.join(WAYS)}), and no folder or file that is there. Give one of these."
    )
