"""Keep keys and values of prompts, so that one that begins alike does not compute them again.

Two prompts begin alike where their tokens are the same and stand for the same pictures.

Shape letters: L tokens of a prompt.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mllm_npu.batch import Blocks, Sample
from mllm_npu.models.language_model.slots import SlotStates

Marks = NDArray[np.int64]
"""What each token of a prompt is: its id, or a negative number that follows from its picture."""

_MIXER = np.uint64(0x9E3779B97F4A7C15)
"""Odd, so that multiplying by it loses nothing; 2**64 over the golden ratio."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """The beginning of a prompt that is known.

    Args:
        length: tokens.
        states: from `Slots.read`, of at least as many.
    """

    length: int
    states: SlotStates


class PrefixCache:
    """States of prompts; the one that was used longest ago leaves first.

    Args:
        max_bytes: memory of all states.
        least: a shorter common beginning is not worth a copy.
        most: prompts that are kept; each is looked at for every new prompt.

    Attributes:
        num_hits: prompts that began as one before.
        num_tokens: tokens that were not computed again.
    """

    def __init__(self, *, max_bytes: int, least: int = 16, most: int = 256) -> None:
        self.max_bytes = max_bytes
        self.least = least
        self.most = most
        self.num_hits = 0
        self.num_tokens = 0
        self._num_bytes = 0
        self._next = 0
        self._kept: OrderedDict[int, tuple[Marks, SlotStates]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, marks_L: Marks, blocks: Blocks = ()) -> Prefix | None:
        """The longest known beginning of a prompt, at least its last token left out.

        Args:
            marks_L: from `mark_tokens`.
            blocks: runs of its tokens that see all of themselves; none of them is cut.
        """
        best, length = None, 0
        for number, (kept, _) in self._kept.items():
            if (common := common_length(kept, marks_L)) > length:
                best, length = number, common
        length = min(length, len(marks_L) - 1)
        length = next((start for start, end in blocks if start < length < end), length)
        if best is None or length < self.least:
            return None
        self._kept.move_to_end(best)
        self.num_hits += 1
        self.num_tokens += length
        return Prefix(length=length, states=self._kept[best][1])

    def is_known(self, marks_L: Marks) -> bool:
        """Whether all of a prompt is kept already, by itself or as the beginning of another."""
        return any(common_length(kept, marks_L) == len(marks_L) for kept, _ in self._kept.values())

    def keep(self, marks_L: Marks, states: SlotStates) -> None:
        """Remember a prompt; those that are its beginning leave for it."""
        size = _num_bytes(states)
        if size > self.max_bytes:
            return
        for number, (kept, _) in list(self._kept.items()):
            if len(kept) <= len(marks_L) and common_length(kept, marks_L) == len(kept):
                self._forget(number)
        self._kept[self._next] = (marks_L, states)
        self._next += 1
        self._num_bytes += size
        while self._num_bytes > self.max_bytes or len(self._kept) > self.most:
            self._forget(next(iter(self._kept)))

    def _forget(self, number: int) -> None:
        _, states = self._kept.pop(number)
        self._num_bytes -= _num_bytes(states)


def mark_tokens(sample: Sample, names: Sequence[bytes]) -> Marks:
    """Say what each token of a prompt is, int64 [L].

    Args:
        sample: the prompt.
        names: of its read tiles, see `name_tiles`.
    """
    marks: Marks = sample.input_ids.numpy().astype(np.int64)
    for name, places in zip(names, sample.read_slots.numpy(), strict=sample.grid_slots is None):
        first = int.from_bytes(name[:7], "little")
        marks[places] = -1 - first - np.arange(len(places))
    if sample.grid_slots is not None and sample.grid_sources is not None:
        marks[sample.grid_slots.numpy()] = _mark_grid(sample, names)
    return marks


def _mark_grid(sample: Sample, names: Sequence[bytes]) -> Marks:
    """Marks of tokens of joined tiles, from the tiles, places and shares they are made of."""
    assert sample.grid_sources is not None
    per_tile = sample.read_slots.shape[1]
    firsts = np.array([int.from_bytes(name[:7], "little") for name in names], dtype=np.int64)
    tokens = (firsts[:, None] + np.arange(per_tile)).ravel()
    # The newline is of no tile.
    parts = np.r_[np.int64(0), tokens].astype(np.uint64)[sample.grid_sources.numpy()] * _MIXER
    if sample.grid_weights is not None:
        parts ^= sample.grid_weights.numpy().view(np.uint32)
    mixed = parts[:, 0]
    for part in parts.T[1:]:
        mixed = mixed * _MIXER + part
    return -1 - (mixed >> np.uint64(1)).astype(np.int64)


def common_length(left: Marks, right: Marks) -> int:
    """Tokens with which both begin."""
    length = min(len(left), len(right))
    differ = left[:length] != right[:length]
    return int(differ.argmax()) if differ.any() else length


def _num_bytes(states: SlotStates) -> int:
    return sum(part.numel() * part.element_size() for part in states)
