"""Digit scans: scikit-learn's 1797 handwritten digits, split for good, as small pictures."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from mllm_npu.data.worlds.world import Split
from mllm_npu.errors import DataError

SCAN_SIZE = 16
NUM_TEST = 360
NUM_VALID = 144
_SPLIT_SEED = 20_241
"""Part of the recipe: the seed of a world changes what is composed, never who is held out."""


class DigitScans:
    """Scans by number, with label, split and picture.

    Args:
        share: share of every split that is used, for tiny worlds; the split itself stays the same.

    Attributes:
        labels: digit of every scan, int64 [1797].
        pixels: scans brought to 16x16 by bicubic, uint8 [1797, 16, 16].
        ids: scan numbers of each split, each scan in one split only.
    """

    def __init__(self, *, share: float = 1.0) -> None:
        raw, self.labels = load_scans()
        self.pixels = upsample(raw)
        self.ids = {
            split: _thin(ids, self.labels, share) for split, ids in split_scans(self.labels).items()
        }
        self._by_digit = {
            split: [[scan for scan in ids if self.labels[scan] == digit] for digit in range(10)]
            for split, ids in self.ids.items()
        }
        self._png: dict[int, bytes] = {}

    def digit(self, scan: int) -> int:
        """Label of a scan."""
        return int(self.labels[scan])

    def png(self, scan: int) -> bytes:
        """A scan as a grey PNG."""
        if scan not in self._png:
            self._png[scan] = encode_png(self.pixels[scan])
        return self._png[scan]

    def draw(self, split: Split, rng: Random) -> int:
        """Any scan of a split, every digit as likely."""
        return self.draw_digit(split, rng.randrange(10), rng)

    def draw_digit(self, split: Split, digit: int, rng: Random, *, not_scan: int = -1) -> int:
        """Any scan of a digit in a split, another one than ``not_scan`` where there is one."""
        scans = self._by_digit[split][digit]
        others = [scan for scan in scans if scan != not_scan]
        return rng.choice(others or scans)

    def strip(self, scans: Sequence[int], rng: Random) -> bytes:
        """Scans side by side as a grey PNG, each 0 or 1 pixel lower and 0 or 1 pixel apart."""
        gaps = [rng.randrange(2) for _ in scans[1:]]
        width = SCAN_SIZE * len(scans) + sum(gaps)
        canvas = np.zeros((SCAN_SIZE + 1, width), dtype=np.uint8)
        left = 0
        for scan, gap in zip(scans, [*gaps, 0], strict=True):
            top = rng.randrange(2)
            canvas[top : top + SCAN_SIZE, left : left + SCAN_SIZE] = self.pixels[scan]
            left += SCAN_SIZE + gap
        return encode_png(canvas)


def load_scans() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Raw scans 0..16, float64 [1797, 8, 8], and their labels, int64 [1797].

    Raises:
        DataError: if scikit-learn is not installed.

    Source: UCI optical recognition of handwritten digits, test part, as shipped by scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits  # noqa: PLC0415  (optional)
    except ImportError as error:
        raise DataError(
            "The digits world needs scikit-learn, which is not installed. "
            "Run `pip install 'mllm-npu[demo]'`."
        ) from error
    scans = load_digits()
    return np.asarray(scans.images, dtype=np.float64), np.asarray(scans.target, dtype=np.int64)


def upsample(raw: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Scans [N, 8, 8] of 0..16 as uint8 [N, 16, 16]."""
    small = torch.from_numpy(raw).float()[:, None] / 16
    large = F.interpolate(small, (SCAN_SIZE, SCAN_SIZE), mode="bicubic", align_corners=False)
    return (large[:, 0].clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def split_scans(labels: NDArray[np.int64]) -> Mapping[Split, list[int]]:
    """Scan numbers of each split, every digit in the same share in each."""
    rng = Random(_SPLIT_SEED)
    ranked: list[tuple[float, int]] = []
    for digit in range(10):
        scans = [int(scan) for scan in np.flatnonzero(labels == digit)]
        rng.shuffle(scans)
        # Places 0..1 inside the digit; cutting all digits at the same place keeps their shares.
        ranked += [((place + rng.random()) / len(scans), scan) for place, scan in enumerate(scans)]
    order = [scan for _, scan in sorted(ranked)]
    edge = NUM_TEST + NUM_VALID
    return {
        "train": sorted(order[edge:]),
        "valid": sorted(order[NUM_TEST:edge]),
        "test": sorted(order[:NUM_TEST]),
    }


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Grey pixels [H, W] as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def _thin(ids: list[int], labels: NDArray[np.int64], share: float) -> list[int]:
    """The first ``share`` of each digit, at least two of it."""
    kept: list[int] = []
    for digit in range(10):
        scans = [scan for scan in ids if labels[scan] == digit]
        kept += scans[: max(2, round(share * len(scans)))]
    return sorted(kept)
