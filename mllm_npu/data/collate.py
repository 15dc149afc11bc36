"""Collate: put samples end to end into one packed row; a row without pictures gets a blank tile.

Shape letters: T tokens of the pack, L tokens of a sample, S sequences, N targets, I tiles, R read
tiles, G drawn pictures, Q tokens per read tile, P tokens per drawn picture, M tokens of joined
tiles, X tokens that one of those is made of.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from mllm_npu.batch import IGNORED_LABEL, Batch, Sample, tile_blocks
from mllm_npu.processing.grid_slots import join_sources
from mllm_npu.processing.processor import Processor
from mllm_npu.processing.tile_buffer import TileBuffer, join_tiles
from mllm_npu.processing.tiling import TokenSources


@dataclass(frozen=True, slots=True, kw_only=True)
class BlankTile:
    """What stands in for pictures in a pack where nothing is read or nothing is drawn.

    Args:
        tile_size: pixels of a tile's edge.
        num_read_tokens: Q.
        num_drawn_tokens: P; 0 for a model that only reads and needs no stand-in.
        token_id: fills the blank sequence; its embeddings carry no loss.
        picture_size: pixels of a drawn picture's edge where an image decoder is trained, else None.
        condition_pictures: whether that decoder takes a picture to change.
        joins: whether the tokens of tiles are joined to a grid, which ends with a newline.
    """

    tile_size: int
    num_read_tokens: int
    num_drawn_tokens: int
    token_id: int
    picture_size: int | None = None
    condition_pictures: bool = False
    joins: bool = False

    @classmethod
    def of(cls, processor: Processor) -> Self:
        """The blank tile that fits a processor's samples."""
        return cls(
            tile_size=processor.any_resolution.tile_size,
            num_read_tokens=processor.num_read_tokens,
            num_drawn_tokens=processor.num_drawn_tokens,
            token_id=processor.pad_id,
            picture_size=processor.picture_size,
            condition_pictures=processor.condition_pictures,
            joins=processor.any_resolution.joins,
        )

    def sample(self, *, read: bool, drawn: bool, buffer: TileBuffer | None = None) -> Sample:
        """A sequence without targets that reads and/or draws the blank tile."""
        num_read = (self.num_read_tokens + self.joins) if read else 0
        num_drawn = self.num_drawn_tokens if drawn else 0
        places = torch.arange(num_read + num_drawn)
        joins = self.joins and read
        size = self.picture_size
        black = None if size is None else torch.zeros(int(drawn), 3, size, size, dtype=torch.uint8)
        return Sample(
            input_ids=torch.full_like(places, self.token_id),
            labels=torch.full_like(places, IGNORED_LABEL),
            tiles=(buffer or TileBuffer(capacity=1, tile_size=self.tile_size)).take(1).zero_(),
            tile_positions=torch.full((1, 2), 0.5),
            read_tiles=torch.zeros(int(read), dtype=torch.int64),
            read_slots=self._read_slots(places[:num_read], num_tiles=int(read)),
            grid_slots=places[:num_read] if joins else None,
            # All of the tile, then the newline, whose number is 0.
            grid_sources=((places[:num_read] + 1) % num_read)[:, None] if joins else None,
            draw_tiles=torch.zeros(int(drawn), dtype=torch.int64),
            draw_slots=places[num_read:].view(int(drawn), self.num_drawn_tokens),
            pictures=black,
            conditions=black if self.condition_pictures else None,
            condition_weights=torch.zeros(int(drawn)) if self.condition_pictures else None,
        )

    def _read_slots(self, places: Tensor, *, num_tiles: int) -> Tensor:
        if self.joins:
            return torch.empty(0, self.num_read_tokens, dtype=torch.int64)
        return places.view(num_tiles, self.num_read_tokens)


def collate(
    samples: Sequence[Sample], *, blank: BlankTile, buffer: TileBuffer | None = None
) -> Batch:
    """Pack samples in their order.

    The blank sequence comes last and is not counted in any token budget; it is there only if no
    sample reads or no sample draws. No samples at all give a pack of the blank sequence alone.

    Args:
        samples: encoded samples of one processor.
        blank: the stand-in for missing pictures.
        buffer: where the samples' tiles lie, if they lie in one.

    Returns:
        A batch as ``mllm_npu.batch.Batch`` documents it.
    """
    num_drawn = sum(sample.draw_tiles.numel() for sample in samples)
    reads_none = not any(sample.read_tiles.numel() for sample in samples)
    draws_none = not num_drawn and blank.num_drawn_tokens > 0
    rows = list(samples)
    if reads_none or draws_none:
        rows.append(blank.sample(read=reads_none, drawn=draws_none, buffer=buffer))
    lengths = [row.num_tokens for row in rows]
    ends = tuple(itertools.accumulate(lengths))
    starts = [end - length for end, length in zip(ends, lengths, strict=True)]
    tile_starts = [0, *itertools.accumulate(len(row.tiles) for row in rows)][:-1]
    tiles = [row.tiles for row in rows if len(row.tiles)]
    first = torch.repeat_interleave(torch.tensor(starts), torch.tensor(lengths))
    target_positions, targets, target_sequences = _shift_targets(rows, first)
    num_rows = num_drawn + draws_none
    read_slots = _join([row.read_slots for row in rows], starts)
    grid_slots, grid_sources, grid_weights = _join_grids(rows, starts, blank.num_read_tokens)
    return Batch(
        input_ids=torch.cat([row.input_ids for row in rows]),
        position_ids=torch.arange(ends[-1]) - first,
        sequence_ends=ends,
        target_positions=target_positions,
        targets=targets,
        target_sequences=target_sequences,
        tiles=join_tiles(tiles) if buffer is None else buffer.join(tiles),
        tile_positions=torch.cat([row.tile_positions for row in rows]),
        read_tiles=_join([row.read_tiles for row in rows], tile_starts),
        read_slots=read_slots,
        grid_slots=grid_slots,
        grid_sources=grid_sources,
        grid_weights=grid_weights,
        read_blocks=tile_blocks(read_slots),
        draw_tiles=_join([row.draw_tiles for row in rows], tile_starts),
        draw_slots=_join([row.draw_slots for row in rows], starts),
        draw_weights=torch.ones(num_rows) if num_drawn else torch.zeros(num_rows),
        draw_sequences=_number([row.draw_tiles for row in rows]),
        pictures=_join_drawn([row.pictures for row in rows]),
        conditions=_join_drawn([row.conditions for row in rows]),
        condition_weights=_join_drawn([row.condition_weights for row in rows]),
        num_drawn=num_drawn,
        keys=tuple(row.key for row in rows),
        sources=tuple(row.source for row in rows),
        tasks=tuple(row.task for row in rows),
    )


def _shift_targets(rows: Sequence[Sample], first: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Places [N] before labels, those labels [N], their sequences [N]; never a first token.

    Args:
        rows: the sequences.
        first: for each token the place of its sequence's first, int64 [T].
    """
    labels = torch.cat([row.labels for row in rows])
    is_target = labels != IGNORED_LABEL
    is_target &= first != torch.arange(len(labels))
    after = is_target.nonzero().flatten()
    return after - 1, labels[after], _number([row.labels for row in rows])[after]


def _join(values: Sequence[Tensor], offsets: Sequence[int]) -> Tensor:
    moved = [value + offset for value, offset in zip(values, offsets, strict=True) if len(value)]
    return torch.cat(moved) if moved else values[0]


def _join_grids(
    rows: Sequence[Sample], starts: Sequence[int], per_tile: int
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Slots [M], sources [M, X] and weights [M, X] of all joined tiles; None where there are none.

    Args:
        rows: the sequences.
        starts: first token of each.
        per_tile: Q.
    """
    found = [
        (start, row.grid_slots, TokenSources(sources=row.grid_sources, weights=row.grid_weights))
        for start, row in zip(starts, rows, strict=True)
        if row.grid_slots is not None and row.grid_sources is not None
    ]
    if not found:
        return None, None, None
    counts = [len(row.read_tiles) * per_tile for row in rows if row.grid_slots is not None]
    sources, weights = join_sources([grid for *_, grid in found], counts)
    return torch.cat([slots + start for start, slots, _ in found]), sources, weights


def _number(values: Sequence[Tensor]) -> Tensor:
    """For each element of each tensor the number of its tensor, int64."""
    counts = torch.tensor([len(value) for value in values])
    return torch.repeat_interleave(torch.arange(len(values)), counts)


def _join_drawn(values: Sequence[Tensor | None]) -> Tensor | None:
    """What belongs to the drawn pictures of each row, end to end; None where there is none."""
    given = [value for value in values if value is not None and len(value)]
    return torch.cat(given) if given else None
