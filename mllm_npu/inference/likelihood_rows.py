"""Which texts are weighed together: rows that begin alike, and how many of them at once.

Shape letters: L tokens of a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mllm_npu.batch import Blocks, Sample
from mllm_npu.inference.prefix_cache import Marks, common_length

_LEAST_COMMON = 32
"""A shorter common beginning is not worth a copy."""
_LEAST_SHARE = 0.25
"""Nor is one that is a smaller share of what it begins."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Row:
    """A question with the beginning of one or more texts; the last token of each is not fed.

    Args:
        question: its number.
        sample: the question.
        marks: of all its tokens, the texts' beginning included, int64 [L].
        stem: tokens of the texts but the last.
        texts: number and tokens of each text that has this stem.
        blocks: runs of its tokens that see all of themselves.
    """

    question: int
    sample: Sample
    marks: Marks
    stem: tuple[int, ...]
    texts: tuple[tuple[int, tuple[int, ...]], ...]
    blocks: Blocks

    @property
    def length(self) -> int:
        """Tokens that are fed."""
        return len(self.marks)


@dataclass(slots=True, kw_only=True)
class Family:
    """Rows that begin alike.

    Args:
        number: tells one from another.
        rows: at least one.
        common: tokens all of them begin with; 0 for one row.
    """

    number: int
    rows: list[Row]
    common: int

    @property
    def common_blocks(self) -> Blocks:
        """Blocks of what they begin with."""
        return tuple(block for block in self.rows[0].blocks if block[1] <= self.common)


def find_families(rows: Sequence[Row], *, shares: bool) -> list[Family]:
    """Rows side by side that begin alike, in their order."""
    families: list[Family] = []
    for row in rows:
        if families and shares:
            last = families[-1]
            common = _common(last, row)
            if common >= max(_LEAST_COMMON, _LEAST_SHARE * row.length, _LEAST_SHARE * last.common):
                last.rows.append(row)
                last.common = common
                continue
        families.append(Family(number=len(families), rows=[row], common=0))
    return families


def _common(family: Family, row: Row) -> int:
    """Tokens with which a family and a row begin; the end of no question, and no block is cut."""
    first = family.rows[0]
    length = common_length(first.marks, row.marks)
    length = min(length, first.sample.num_tokens - 1, row.sample.num_tokens - 1)
    if family.common:
        length = min(length, family.common)
    return next((start for start, end in row.blocks if start < length < end), length)


def fed_lengths(batch: Sequence[Family]) -> list[int]:
    """Tokens each row is fed: those of one family all the same, so that they are one dense call."""
    if len(batch) == 1 and all(
        end <= batch[0].common for row in batch[0].rows for _, end in row.blocks
    ):
        longest = max(row.length for row in batch[0].rows)
        return [longest - batch[0].common] * len(batch[0].rows)
    return [row.length - family.common for family in batch for row in family.rows]


def split_families(
    families: Sequence[Family], *, max_rows: int, max_tokens: int
) -> Iterator[list[Family]]:
    """Families that are fed together; a large one is split, its longest rows first.

    Args:
        families: in their order.
        max_rows: rows at once.
        max_tokens: tokens at once, about: a row by itself may have more.
    """
    batch: list[Family] = []
    num_rows = num_tokens = 0
    for family in families:
        rest = sorted(family.rows, key=lambda row: row.length, reverse=True)
        while rest:
            longest = rest[0].length - family.common
            room = (max_tokens - num_tokens - family.common) // longest
            take = min(len(rest), max_rows - num_rows, max(room, 0 if batch else 1))
            if batch and take < min(len(rest), max_rows):
                yield batch
                batch, num_rows, num_tokens = [], 0, 0
                continue
            batch.append(Family(number=family.number, rows=rest[:take], common=family.common))
            num_rows += take
            num_tokens += family.common + take * longest
            rest = rest[take:]
    if batch:
        yield batch
