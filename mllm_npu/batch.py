"""The values that travel from the data to the model to the loop: Sample, Batch, Losses.

Shape letters: L tokens of one sample, T tokens of a pack, S sequences of a pack, N tokens with a
target, I tiles, R tiles that are read, G pictures that are drawn, Q tokens per read tile, P tokens
per drawn picture, M tokens of joined tiles, X tokens that one of those is made of.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from mllm_npu.device.transfer import to_device

IGNORED_LABEL = -100

Blocks = tuple[tuple[int, int], ...]
"""First token and end of each of some runs of tokens, rising, on the host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One conversation as the model sees it, before packing.

    Args:
        input_ids: token ids, int64 [L].
        labels: the ids to be learnt at their own place, IGNORED_LABEL elsewhere, int64 [L].
        tiles: every picture the vision encoder must see, not normalised, uint8 [I, 3, H, W].
        tile_positions: centre (x, y) of each tile in its picture, 0..1; the whole picture has
            (.5, .5), float32 [I, 2].
        read_tiles: indices into tiles of the ones the language model reads, int64 [R].
        read_slots: for each read tile the places in input_ids that take its features, int64 [R, Q];
            none where tiles are joined.
        grid_slots: the places that take tokens of joined tiles; None where there are none, int64
            [M].
        grid_sources: what each of those is made of: 0 is the learnt newline, 1 + i the i-th token
            of the read tiles one behind the other, int64 [M, X].
        grid_weights: shares of those; None where each is one of them, float32 [M, X].
        draw_tiles: indices into tiles of the pictures the model learns to draw, int64 [G].
        draw_slots: for each drawn picture the places in input_ids whose states predict its
            features, int64 [G, P].
        pictures: the drawn pictures at the image decoder's size where one is trained, else None,
            uint8 [G, 3, S, S].
        conditions: for each drawn picture the one it changes, black where it changes none, at the
            same size; None where the image decoder takes none, uint8 [G, 3, S, S].
        condition_weights: 1 where there is such a picture, else 0, float32 [G]; None with
            ``conditions``.
        key: name of the row in its shard.
        source: name of the data set.
        task: kind of row (caption, ocr, ...).
    """

    input_ids: Tensor
    labels: Tensor
    tiles: Tensor
    tile_positions: Tensor
    read_tiles: Tensor
    read_slots: Tensor
    draw_tiles: Tensor
    draw_slots: Tensor
    grid_slots: Tensor | None = None
    grid_sources: Tensor | None = None
    grid_weights: Tensor | None = None
    pictures: Tensor | None = None
    conditions: Tensor | None = None
    condition_weights: Tensor | None = None
    key: str = ""
    source: str = ""
    task: str = ""

    @property
    def num_tokens(self) -> int:
        """Length L of the sample in tokens."""
        return int(self.input_ids.numel())


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One packed row: several samples end to end, positions instead of masks, never without a tile.

    A pack in which nothing is read (or drawn) carries one blank tile in a last sequence without
    targets and with draw weight 0, so that every rank runs the same graph.

    Args:
        input_ids: int64 [T].
        position_ids: place of each token in its own sequence, int64 [T].
        sequence_ends: cumulative ends of the S sequences without a leading 0, on the host
            (``[3, 3] -> (3, 6)``).
        target_positions: places whose state predicts a labelled next token of the same sequence,
            int64 [N].
        targets: those next tokens, int64 [N].
        target_sequences: sequence number of each target, int64 [N].
        tiles: uint8 [I, 3, H, W].
        tile_positions: float32 [I, 2].
        read_tiles: int64 [R].
        read_slots: places in input_ids, int64 [R, Q]; none where tiles are joined.
        grid_slots: places of tokens of joined tiles, int64 [M], else None.
        grid_sources: what each is made of, numbered over all read tiles, int64 [M, X], else None.
        grid_weights: shares of those, float32 [M, X], else None.
        draw_tiles: int64 [G].
        draw_slots: places in input_ids, int64 [G, P].
        draw_weights: 1 for a real drawn picture, 0 for the blank one, float32 [G].
        draw_sequences: sequence number of each drawn picture, int64 [G].
        pictures: uint8 [G, 3, S, S] where an image decoder is trained, else None.
        conditions: uint8 [G, 3, S, S] where that decoder takes the picture to change, else None.
        condition_weights: 1 where there is such a picture, float32 [G], else None.
        read_blocks: first place and end of each read tile, rising, on the host.
        num_drawn: real drawn pictures, on the host.
        keys, sources, tasks: of each sequence; empty strings for the blank one.
    """

    input_ids: Tensor
    position_ids: Tensor
    sequence_ends: tuple[int, ...]
    target_positions: Tensor
    targets: Tensor
    target_sequences: Tensor
    tiles: Tensor
    tile_positions: Tensor
    read_tiles: Tensor
    read_slots: Tensor
    draw_tiles: Tensor
    draw_slots: Tensor
    draw_weights: Tensor
    draw_sequences: Tensor
    grid_slots: Tensor | None = None
    grid_sources: Tensor | None = None
    grid_weights: Tensor | None = None
    pictures: Tensor | None = None
    conditions: Tensor | None = None
    condition_weights: Tensor | None = None
    read_blocks: Blocks = ()
    num_drawn: int = 0
    keys: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()

    @property
    def num_tokens(self) -> int:
        """Length T of the pack, the blank sequence included."""
        return int(self.input_ids.numel())

    @property
    def num_samples(self) -> int:
        """Real samples in the pack, the blank sequence left out."""
        return sum(1 for source in self.sources if source)

    @property
    def num_targets(self) -> int:
        """Tokens that carry loss; a shape, so no device is asked."""
        return int(self.targets.numel())

    def to(self, device: torch.device | str) -> Self:
        """The same batch with its tensors on ``device``; the host does not wait for the copies."""
        return self._map(lambda tensor: to_device(tensor, device))

    def pin_memory(self) -> Self:
        """The same batch in page-locked memory, so that copies to the device overlap with work."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: object) -> Self:
        changed = {
            entry.name: change(value)  # type: ignore[operator]
            for entry in dataclasses.fields(self)
            if isinstance(value := getattr(self, entry.name), Tensor)
        }
        return dataclasses.replace(self, **changed)


def tile_blocks(slots_RQ: Tensor) -> Blocks:
    """The runs of tokens that read tiles are, from their places on the host, int64 [R, Q]."""
    first_and_last: list[list[int]] = slots_RQ[:, [0, -1]].tolist() if slots_RQ.numel() else []
    return tuple(sorted((first, last + 1) for first, last in first_and_last))


def whole_tiles(sources_MX: Tensor, per_tile: int) -> Tensor:
    """For each token of joined tiles the number of its whole picture among the read tiles, [M].

    A picture begins with the tokens of the whole of it, which is the last of its tiles.

    Args:
        sources_MX: as of `Batch.grid_sources`, on the host.
        per_tile: Q.
    """
    return (sources_MX[:, 0] - 1).div(per_tile, rounding_mode="floor").cummax(0).values


@dataclass(frozen=True, slots=True, kw_only=True)
class LossTerm:
    """One part of the loss as a sum, so that the loop can divide by the count of the whole step.

    Args:
        total: weighted-by-nothing sum over the elements, 0-d, differentiable.
        count: number of elements behind the sum, on the host.
        weight: factor of this part in the step's loss.
    """

    total: Tensor
    count: int
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """What a forward pass gives back to the loop.

    Args:
        terms: the parts of the loss by name ("language", "image", "reconstruction", ...).
        per_target: detached loss of each target, float32 [N], for the per-data-set log.
        per_drawn: detached mean loss of each drawn picture, float32 [G].
    """

    terms: Mapping[str, LossTerm]
    per_target: Tensor | None = None
    per_drawn: Tensor | None = field(default=None)

    def total(self, counts: Mapping[str, float]) -> Tensor:
        """Loss of the step's share of this batch, 0-d.

        Args:
            counts: for each term the number of elements of the whole step (all micro-batches, all
                ranks).
        """
        parts = [
            term.weight * term.total / max(counts[name], 1.0) for name, term in self.terms.items()
        ]
        return torch.stack(parts).sum()
