"""Pack: samples that form a batch, as a plan hands them out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple


class Pick(NamedTuple):
    """One sample of a plan.

    Args:
        source: number of the source.
        sample: its number in the source.
        visit: how often the source was run through before, over all epochs; seeds the sample's
            randomness.
        form: what it becomes, a number of the task's forms.
    """

    source: int
    sample: int
    visit: int
    form: int


@dataclass(frozen=True, slots=True)
class Pack:
    """Samples that form a batch.

    Args:
        picks: in their order.
        num_tokens: planned tokens of them all.
        num_tiles: planned tiles of the vision encoder.
    """

    picks: tuple[Pick, ...]
    num_tokens: int
    num_tiles: int

    def __len__(self) -> int:
        return len(self.picks)

    def __iter__(self) -> Iterator[Pick]:
        return iter(self.picks)


class PlannedWindow(NamedTuple):
    """A window of an epoch with its packs.

    Args:
        before: samples of the epoch before it.
        packs: in the order in which they are trained.
    """

    before: int
    packs: list[Pack]

    @property
    def tokens(self) -> list[int]:
        """Planned tokens of each pack."""
        return [pack.num_tokens for pack in self.packs]

    @property
    def tiles(self) -> list[int]:
        """Planned tiles of each pack."""
        return [pack.num_tiles for pack in self.packs]
