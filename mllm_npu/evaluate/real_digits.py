"""Real scans of the digits world by split, and what becomes of them when they are redrawn."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from mllm_npu.data.worlds.digit_scans import load_scans, upsample
from mllm_npu.data.worlds.world import SPLITS
from mllm_npu.errors import DataError
from mllm_npu.evaluate.judge_digits import DigitJudge


@dataclass(frozen=True, slots=True, kw_only=True)
class Scans:
    """Real scans as RGB pictures, with the digits they show."""

    pictures: Sequence[Image.Image]
    digits: Sequence[int]

    def first(self, num: int | None) -> Scans:
        """The first ``num`` of them; all for None."""
        return Scans(pictures=self.pictures[:num], digits=self.digits[:num])


@dataclass(frozen=True, slots=True, kw_only=True)
class Redrawn:
    """Scans sent through vision encoder and image decoder.

    Args:
        scans: before.
        pictures: after, in the same order.
        seen: the digit the judge sees in each.
        errors: mean squared difference of each, pixels in [-1, 1].
    """

    scans: Scans
    pictures: Sequence[Image.Image]
    seen: Sequence[int]
    errors: Sequence[float]

    @property
    def scores(self) -> list[float]:
        """1 for each picture judged right."""
        return [float(a == b) for a, b in zip(self.seen, self.scans.digits, strict=True)]


def read_judge(world: Path) -> DigitJudge:
    """A judge that has seen the real training scans of a world only.

    Raises:
        DataError: if the folder does not say which scans belong to which split.
    """
    return read_scans(Path(world))[1]


def read_scans(world: Path) -> tuple[Mapping[str, Scans], DigitJudge]:
    """The scans of each split of a world, and a judge that has seen its real training scans only.

    Raises:
        DataError: if the folder does not say which scans belong to which split.
    """
    file = world / "splits.json"
    try:
        papers = json.loads(file.read_text(encoding="utf-8"))
        splits: dict[str, list[int]] = {name: papers[name] for name in SPLITS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"The splits of the digits world were looked for in {file}, they cannot be read "
            f"({error}). Make the world with `mllm-npu data digits`."
        ) from error
    raw_N88, digits_N = load_scans()
    pictures = [Image.fromarray(pixels).convert("RGB") for pixels in upsample(raw_N88)]
    scans = {
        name: Scans(
            pictures=[pictures[number] for number in numbers],
            digits=[int(digits_N[number]) for number in numbers],
        )
        for name, numbers in splits.items()
    }
    train = scans["train"]
    return scans, DigitJudge(pictures=train.pictures, digits=train.digits)
