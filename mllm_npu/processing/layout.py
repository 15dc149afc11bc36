"""Collect the tokens of one sample while it is laid out, and which pictures fill which slots.

Shape letters: R rows of slots, W slots of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from mllm_npu.batch import IGNORED_LABEL
from mllm_npu.processing.conversation import Conversation, DrawnImage, ReadImage


@dataclass(slots=True, kw_only=True)
class TokenLayout:
    """Tokens so far, and which pictures fill which slots.

    Args:
        conversation: whose tokens they are.
        ids: token ids.
        labels: the ids that are learnt, IGNORED_LABEL elsewhere.
        read_starts: place of the first slot of every read tile that stands by itself.
        grid_starts: place of the first token of every read picture whose tiles are joined.
        num_joined: their tiles.
        draw_starts: place of the first slot of every drawn picture.
        pictures: the pictures behind them, in reading order.
    """

    conversation: Conversation
    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    read_starts: list[int] = field(default_factory=list)
    grid_starts: list[int] = field(default_factory=list)
    num_joined: int = 0
    draw_starts: list[int] = field(default_factory=list)
    pictures: list[ReadImage | DrawnImage] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        """Tokens so far."""
        return len(self.ids)

    @property
    def num_tiles(self) -> int:
        """Tiles that the vision encoder sees of the pictures so far."""
        return len(self.read_starts) + self.num_joined + len(self.draw_starts)

    def add(self, ids: Sequence[int], *, learn: bool) -> None:
        """Append tokens."""
        self.ids.extend(ids)
        self.labels.extend(ids if learn else (IGNORED_LABEL,) * len(ids))

    def add_labelled(self, ids: Sequence[int], labels: Sequence[int]) -> None:
        """Append tokens of which some are learnt."""
        self.ids.extend(ids)
        self.labels.extend(labels)

    def add_read(
        self, part: ReadImage, blocks: Sequence[Sequence[int]], *, num_before: int = 1
    ) -> None:
        """Append a picture that is read.

        Args:
            part: the picture.
            blocks: ids of each tile.
            num_before: those of them in front of its slots.
        """
        self.pictures.append(part)
        for block in blocks:
            self.read_starts.append(len(self.ids) + num_before)
            self.add(block, learn=False)

    def add_joined(self, part: ReadImage, ids: Sequence[int], num_tiles: int) -> None:
        """Append a picture that is read, whose tiles are joined to as many tokens."""
        self.pictures.append(part)
        self.grid_starts.append(len(self.ids))
        self.num_joined += num_tiles
        self.add(ids, learn=False)

    def add_drawn(self, part: DrawnImage, block: Sequence[int]) -> None:
        """Append a picture that is learnt; of its block only the opening tag has a label."""
        self.pictures.append(part)
        self.draw_starts.append(len(self.ids) + 1)
        self.add(block[:1], learn=True)
        self.add(block[1:], learn=False)


def slot_places(starts: list[int], width: int) -> Tensor:
    """Places of slots that lie side by side, int64 [R, W]."""
    if not starts:
        return _no_slots(width)
    return torch.tensor(starts, dtype=torch.int64)[:, None] + _steps(width)


@lru_cache(maxsize=8)
def _no_slots(width: int) -> Tensor:
    """No row of slots, int64 [0, W]."""
    return torch.empty(0, width, dtype=torch.int64)


@lru_cache(maxsize=8)
def _steps(width: int) -> Tensor:
    """0, 1, ... as many as there are slots in a row, int64 [W]."""
    return torch.arange(width)
