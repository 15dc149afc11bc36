"""Requests of equal length that advance together on one key-value cache.

Shape letters: B rows, L tokens fed at once, D language width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mllm_npu.batch import Blocks
from mllm_npu.device.transfer import to_device
from mllm_npu.inference.live_row import LiveRow
from mllm_npu.models.interfaces import LanguageModel


@dataclass(slots=True, kw_only=True)
class Group:
    """Rows of one cache; a row that has ended or left is None and is fed along unread.

    Args:
        rows: the requests by cache row.
        cache: what the language model has read.
        pending_BLD: what it reads next, float.
        pending_blocks: for each row the runs of it that see all of themselves; empty for none.
        draws: whether the pending tokens end with a picture, in every row that is live.
    """

    rows: list[LiveRow | None]
    cache: Any
    pending_BLD: Tensor
    draws: bool
    pending_blocks: Sequence[Blocks] = ()

    def live(self) -> list[tuple[int, LiveRow]]:
        """Live requests with their cache row."""
        return [(place, row) for place, row in enumerate(self.rows) if row is not None]


def begin_group(rows: Sequence[LiveRow], language_model: LanguageModel) -> Group:
    """Put requests of equal length on a fresh cache, all that they already chose included.

    Args:
        rows: requests of the same length, chosen tokens included; all draw or none does.
        language_model: gives the cache and the embeddings.
    """
    histories = [torch.cat([row.prompt_LD, embed_ids(row.ids, language_model)]) for row in rows]
    has_blocks = any(row.prompt_blocks for row in rows)
    return Group(
        rows=list(rows),
        cache=language_model.new_cache(),
        pending_BLD=torch.stack(histories),
        draws=rows[0].draws,
        pending_blocks=[row.prompt_blocks for row in rows] if has_blocks else (),
    )


def go_on(group: Group, language_model: LanguageModel) -> list[Group]:
    """What must be fed next, after every live row has chosen a token.

    All rows of a cache are fed the same number of tokens. So when only some begin a picture, those
    leave for a group of their own, which reads their history again.

    Returns:
        No group when every request has ended, one as a rule, two after a split.
    """
    group.rows = [None if row is None or row.finished else row for row in group.rows]
    drawing = [(place, row) for place, row in group.live() if row.draws]
    writing = [(place, row) for place, row in group.live() if not row.draws]
    if not drawing and not writing:
        return []
    if drawing and writing:
        for place, _ in drawing:
            group.rows[place] = None
        split_off = [begin_group([row for _, row in drawing], language_model)]
    else:
        split_off = []
    group.draws = not writing
    num_new = len(drawing[0][1].image_block) if group.draws else 1
    example = group.live()[0][1]
    fed = [(example if row is None else row).ids[-num_new:] for row in group.rows]
    group.pending_BLD = torch.stack([embed_ids(ids, language_model) for ids in fed])
    group.pending_blocks = ()
    return [*split_off, group]


def embed_ids(ids: Sequence[int], language_model: LanguageModel) -> Tensor:
    """Embeddings of host-side ids, float [len(ids), D], on the device of the model."""
    device = next(language_model.parameters()).device
    return language_model.embed(to_device(torch.tensor(ids, dtype=torch.int64), device))
