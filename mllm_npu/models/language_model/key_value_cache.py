"""Remember keys and values of rows of different lengths, and say what new tokens see of them.

Prompts of unequal length lie right-padded in the cache; the padding stays where it is and is never
visible, because every place of the cache knows its position in its row. So rows of any length
decode together without left padding.

Shape letters: B rows, Q new tokens of a row, K places of the cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from mllm_npu.batch import Blocks
from mllm_npu.device.transfer import to_device
from mllm_npu.errors import RequestError
from mllm_npu.models.language_model.attention_hook import CacheLayout
from mllm_npu.ops.attention import NEVER_VISIBLE


class KeyValueCache:
    """Keys and values of all layers, with the position of each place on the host and on the device.

    Args:
        states: the tensors, in transformers' own form.

    Attributes:
        lengths: tokens each row holds, padding not counted; empty before the first ``extend``.
    """

    def __init__(self, *, states: DynamicCache) -> None:
        self.states = states
        self.lengths: tuple[int, ...] = ()
        self._key_positions: Tensor | None = None
        self._has_padding = False

    def plan(
        self, num_rows: int, num_new: int, new_lengths: Sequence[int] | None
    ) -> tuple[int, ...]:
        """Check what is to be appended and give the rows' lengths afterwards.

        Args:
            num_rows: B of the new tokens.
            num_new: Q of the new tokens.
            new_lengths: valid tokens of each row, 0..Q, the rest is padding; None means all.

        Raises:
            RequestError: another number of rows than the cache holds, or lengths that do not fit.
        """
        before = self.lengths or (0,) * num_rows
        added = (num_new,) * num_rows if new_lengths is None else tuple(new_lengths)
        if len(before) != num_rows or len(added) != num_rows:
            raise RequestError(
                f"The cache holds {len(before)} rows; {num_rows} rows with {len(added)} lengths "
                "were to be appended."
            )
        after = tuple(old + new for old, new in zip(before, added, strict=True))
        if num_new < 1 or min(added) < 0 or max(added) > num_new or min(after) < 1:
            raise RequestError(
                f"Lengths {added} do not fit {num_new} new tokens on rows that hold {before}; "
                "give 0..new tokens per row, and at least one token in every row."
            )
        return after

    def append(
        self,
        num_rows: int,
        num_new: int,
        new_lengths: Sequence[int] | None,
        device: torch.device,
        blocks: Sequence[Blocks] = (),
    ) -> CacheLayout:
        """Record new tokens (their keys follow from the layers) and say what they see.

        Args:
            num_rows: B.
            num_new: Q.
            new_lengths: as for ``plan``.
            device: where the layout is needed.
            blocks: for each row the runs of its new tokens that see all of themselves.
        """
        after = self.plan(num_rows, num_new, new_lengths)
        before = self.lengths or (0,) * num_rows
        steps = torch.arange(num_new, device="cpu")
        places = torch.tensor(before, device="cpu")[:, None] + steps
        last = torch.tensor(after, device="cpu")[:, None] - 1
        padding = places > last
        # Padding asks from the row's last place, so that it sees something and stays finite.
        queries = to_device(torch.minimum(places, last), device)
        padded_now = bool(padding.any())
        keys = to_device(places.masked_fill(padding, NEVER_VISIBLE), device)
        reach = queries if not any(blocks) else to_device(_reach(places, last, blocks), device)
        first = self._key_positions is None
        self._key_positions = (
            keys if self._key_positions is None else torch.cat([self._key_positions, keys], 1)
        )
        self._has_padding = self._has_padding or padded_now
        self.lengths = after
        return CacheLayout(
            query_positions=queries,
            reach=reach,
            key_positions=self._key_positions,
            first=first and not self._has_padding and not any(blocks),
            sees_all=num_new == 1 and not self._has_padding,
        )

    def select(self, rows: Sequence[int]) -> None:
        """Keep only ``rows``, in this order; rows may repeat.

        Raises:
            RequestError: a row that is not there, or none.
        """
        if not rows or not all(0 <= row < len(self.lengths) for row in rows):
            raise RequestError(
                f"The cache holds rows 0..{len(self.lengths) - 1}; rows {tuple(rows)} were asked "
                "for."
            )
        if self._key_positions is not None:
            index = to_device(torch.tensor(tuple(rows), device="cpu"), self._key_positions.device)
            self.states.batch_select_indices(index)
            self._key_positions = self._key_positions.index_select(0, index)
        self.lengths = tuple(self.lengths[row] for row in rows)


def _reach(places: Tensor, last: Tensor, blocks: Sequence[Blocks]) -> Tensor:
    """Place of the last token each new token sees, int64 [B, Q], on the host."""
    reach = torch.minimum(places, last)
    for row, own in enumerate(blocks):
        for start, end in own:
            reach[row, start:end] = places[row, end - 1]
    return reach
