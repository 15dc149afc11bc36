"""Pack view: the samples of a read pack side by side, and what is left of its budget."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass

from mllm_npu.batch import Batch, whole_tiles
from mllm_npu.data.pack_reader import ReadPack
from mllm_npu.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A sample of a pack.

    Args:
        source: name of its data set.
        task: kind of row.
        key: name of its row.
        num_tokens: its length.
        num_tiles: its tiles.
    """

    source: str
    task: str
    key: str
    num_tokens: int
    num_tiles: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PackView:
    """A pack as it was read.

    Args:
        number: of the pack in its window.
        segments: its samples in order; the blank sequence is none.
        tokens_per_pack: budget of tokens.
        planned_tokens: sum of the planned lengths.
        has_blank: whether a blank tile stands in, because nothing is read or nothing is drawn.
        left_out: reasons of planned samples that could not be used, counted.
    """

    number: int
    segments: tuple[Segment, ...]
    tokens_per_pack: int
    planned_tokens: int
    has_blank: bool
    left_out: dict[str, int]

    @property
    def num_tokens(self) -> int:
        """Tokens of its samples."""
        return sum(segment.num_tokens for segment in self.segments)

    @property
    def num_tiles(self) -> int:
        """Tiles of its samples."""
        return sum(segment.num_tiles for segment in self.segments)

    @property
    def padding(self) -> float:
        """Share of the budget that no sample fills."""
        return max(0.0, 1 - self.num_tokens / self.tokens_per_pack)


def view_pack(
    read: ReadPack, *, number: int, tokens_per_pack: int, planned_tokens: int
) -> PackView:
    """What there is to see of a pack.

    Args:
        read: the pack.
        number: of the pack in its window.
        tokens_per_pack: budget of tokens.
        planned_tokens: sum of the planned lengths.

    Raises:
        DataError: if it could not be read.
    """
    if read.batch is None:
        raise DataError(read.failure)
    batch = read.batch
    begins = (0, *batch.sequence_ends)[: len(batch.sequence_ends)]
    tiles = _count_tiles(batch)
    segments = [
        Segment(source=source, task=task, key=key, num_tokens=end - begin, num_tiles=count)
        for source, task, key, begin, end, count in zip(
            batch.sources,
            batch.tasks,
            batch.keys,
            begins,
            batch.sequence_ends,
            tiles,
            strict=True,
        )
        if source
    ]
    return PackView(
        number=number,
        segments=tuple(segments),
        tokens_per_pack=tokens_per_pack,
        planned_tokens=planned_tokens,
        has_blank=len(segments) < len(batch.sequence_ends),
        left_out=dict(Counter(outcome.reason for outcome in read.outcomes if outcome.reason)),
    )


def _count_tiles(batch: Batch) -> list[int]:
    """Tiles of each sequence, found by the slots that they fill."""
    counts = [0] * len(batch.sequence_ends)
    for slots in (batch.read_slots, batch.draw_slots):
        for first in slots[:, :1].flatten().tolist():
            counts[bisect_right(batch.sequence_ends, first)] += 1
    if batch.grid_slots is not None and batch.grid_sources is not None:
        known = -1
        wholes = whole_tiles(batch.grid_sources, batch.read_slots.shape[1]).tolist()
        for place, whole in zip(batch.grid_slots.tolist(), wholes, strict=True):
            counts[bisect_right(batch.sequence_ends, place)] += whole - known
            known = whole
    return counts
