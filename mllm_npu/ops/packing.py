"""Lay packed sequences out as padded rows and back, by index selections in both directions.

Each token is copied to one real place, and padding carries no gradient, so the gradient of a copy
is a selection too: nothing is summed, on no device.

Shape letters: T packed tokens, S sequences of a group, L longest sequence of a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mllm_npu.device.transfer import to_device
from mllm_npu.errors import RequestError
from mllm_npu.ops.sequence_exchange import SequenceExchange

_TOLERATED_PADDING = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceGroup:
    """Sequences of similar length that run as one padded batch.

    Args:
        num_sequences: rows.
        length: tokens of a row, padding included.
    """

    num_sequences: int
    length: int


@dataclass(frozen=True, kw_only=True)
class Packing:
    """Where the sequences of a pack are; prepared once per batch, used by every layer.

    The rows are planned, and the indices copied to the device, when something first asks for them:
    a device that attends in the pack as it is needs none of them.

    Args:
        sequence_ends: cumulative ends of the sequences without a leading 0.
        device: where the indices are needed.
        one_group: all sequences run in one padded batch, however unequal they are.
        receipts: gets the window of each attention call, where a caller wants to know who called;
            else None.
        exchange: between the ranks that share the pack, where several do.
    """

    sequence_ends: tuple[int, ...]
    device: torch.device
    one_group: bool = False
    receipts: list[int | None] | None = field(default=None)
    exchange: SequenceExchange | None = field(default=None)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each sequence."""
        starts = (0, *self.sequence_ends)
        return tuple(end - start for start, end in zip(starts, self.sequence_ends, strict=False))

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return max(self.lengths)

    @property
    def pairs(self) -> PairPacking:
        """Each sequence with itself."""
        return PairPacking(queries=self, keys=self)

    @property
    def groups(self) -> tuple[SequenceGroup, ...]:
        """The padded batches the sequences run in; their rows lie end to end."""
        return self._rows.groups

    @property
    def in_order(self) -> bool:
        """The rows are the pack as it is, nothing has to be copied."""
        return len(self.groups) == 1 and self._rows.real is None

    @cached_property
    def gather(self) -> Tensor:
        """Token of each place of the rows, int64 [sum of S * L]; padding repeats its row's last."""
        return to_device(self._rows.gather, self.device)

    @cached_property
    def places(self) -> Tensor:
        """Place of each token in the rows, int64 [T]."""
        return to_device(self._rows.places, self.device)

    @cached_property
    def real(self) -> Tensor | None:
        """1 at real places of the rows, 0 at padding, float32 [sum of S * L]; None without it."""
        return None if self._rows.real is None else to_device(self._rows.real, self.device)

    @cached_property
    def bounds(self) -> Tensor:
        """First token of each sequence, and the end of the last one, int32 [sequences + 1]."""
        ends = torch.tensor((0, *self.sequence_ends), dtype=torch.int32, device="cpu")
        return to_device(ends, self.device)

    @cached_property
    def _rows(self) -> _Rows:
        return _plan_rows(self.lengths, one_group=self.one_group)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairPacking:
    """Where the sequences of two packs are that attend to each other, one by one.

    Args:
        queries: sequences of the queries.
        keys: as many of the keys.
    """

    queries: Packing
    keys: Packing


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """What a `Packing` gives, on the host."""

    groups: tuple[SequenceGroup, ...]
    gather: Tensor
    places: Tensor
    real: Tensor | None


def pack_sequences(
    sequence_ends: Sequence[int],
    device: torch.device | str,
    *,
    one_group: bool = False,
    receipts: list[int | None] | None = None,
    exchange: SequenceExchange | None = None,
) -> Packing:
    """Say where the sequences of a pack are; nothing is copied to the device yet.

    Args:
        sequence_ends: cumulative ends without a leading 0, strictly rising.
        device: where the indices are needed.
        one_group: put all sequences in one batch, however unequal they are.
        receipts: see `Packing`.
        exchange: see `Packing`.

    Raises:
        RequestError: the ends do not rise or there are none.
    """
    packing = Packing(
        sequence_ends=tuple(map(int, sequence_ends)),
        device=torch.device(device),
        one_group=one_group,
        receipts=receipts,
        exchange=exchange,
    )
    if min(packing.lengths, default=0) < 1:
        raise RequestError(
            f"sequence_ends={tuple(sequence_ends)} does not describe a pack; give rising ends "
            "such as (3, 7)."
        )
    return packing


def pair_sequences(
    ends_q: Sequence[int], ends_k: Sequence[int], device: torch.device | str
) -> PairPacking:
    """Say where the sequences of two packs are; some may be empty.

    Args:
        ends_q: cumulative ends of the queries' sequences without a leading 0.
        ends_k: the same of the keys', as many.
        device: where the indices are needed.
    """
    queries, keys = (
        Packing(sequence_ends=tuple(map(int, ends)), device=torch.device(device))
        for ends in (ends_q, ends_k)
    )
    return PairPacking(queries=queries, keys=keys)


def _plan_rows(sequence_lengths: Sequence[int], *, one_group: bool) -> _Rows:
    """Sort the sequences by length and lay them out in groups; host work."""
    lengths = np.array(sequence_lengths, dtype=np.int64)
    starts = lengths.cumsum() - lengths
    order = np.argsort(-lengths, kind="stable")
    groups, gathers, reals = [], [], []
    for first, last in _group_bounds(lengths[order].tolist(), one_group=one_group):
        rows = order[first:last, None]
        length = int(lengths[order[first]])
        steps = np.arange(length)
        gathers.append((starts[rows] + np.minimum(steps, lengths[rows] - 1)).ravel())
        reals.append((steps < lengths[rows]).ravel())
        groups.append(SequenceGroup(num_sequences=last - first, length=length))
    gather, real = np.concatenate(gathers), np.concatenate(reals)
    places = np.empty(int(lengths.sum()), dtype=np.int64)
    places[gather[real]] = np.flatnonzero(real)
    return _Rows(
        groups=tuple(groups),
        gather=torch.tensor(gather, device="cpu"),
        places=torch.tensor(places, device="cpu"),
        real=None if real.all() else torch.tensor(real, dtype=torch.float32, device="cpu"),
    )


def _group_bounds(falling_lengths: list[int], *, one_group: bool) -> list[tuple[int, int]]:
    """Cut falling lengths so that no row is padded by much more than a third of its length."""
    bounds, first = [], 0
    for index, length in enumerate(falling_lengths):
        longest = falling_lengths[first]
        if not one_group and 3 * longest > 4 * length and longest - length > _TOLERATED_PADDING:
            bounds.append((first, index))
            first = index
    return [*bounds, (first, len(falling_lengths))]


class _ToRows(torch.autograd.Function):
    """Copy packed tokens into padded rows; padding has no gradient, the way back selects too."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return tokens.index_select(0, packing.gather)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.index_select(0, ctx.packing.places), None


class _ToTokens(torch.autograd.Function):
    """Copy the real places of padded rows back to packed tokens."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return rows.index_select(0, packing.places)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return gradients_to_rows(grad, ctx.packing), None


def to_rows(tokens: Tensor, packing: Packing) -> Tensor:
    """Packed tokens [T, ...] -> padded rows of all groups end to end [sum of S * L, ...]."""
    return tokens if packing.in_order else _ToRows.apply(tokens, packing)  # type: ignore[no-untyped-call]


def to_tokens(rows: Tensor, packing: Packing) -> Tensor:
    """Padded rows of all groups end to end [sum of S * L, ...] -> packed tokens [T, ...]."""
    return rows if packing.in_order else _ToTokens.apply(rows, packing)  # type: ignore[no-untyped-call]


def gradients_to_rows(tokens: Tensor, packing: Packing) -> Tensor:
    """As `to_rows`, but padding is zero; without a way back."""
    if packing.in_order:
        return tokens
    rows = tokens.index_select(0, packing.gather)
    if packing.real is None:
        return rows
    return rows * packing.real.to(rows.dtype).view(-1, *[1] * (rows.dim() - 1))
