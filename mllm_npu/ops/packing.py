"""Lay packed sequences out as padded rows and back, by index selections in both directions.

Each token is copied to one real place, and padding carries no gradient, so the gradient of a copy
is a selection too: nothing is summed, on no device.

Shape letters: T packed tokens, S sequences of a group, L longest sequence of a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """Where the sequences of a pack are; prepared once per batch, used by every layer.

    Args:
        sequence_ends: cumulative ends of the sequences without a leading 0.
        groups: the padded batches the sequences run in; their rows lie end to end.
        gather: token of each place of the rows, padding repeats its row's last token, int64 [sum of
            S * L].
        places: place of each token in the rows, int64 [T].
        real: 1 for a real place of the rows and 0 for padding, float32 [sum of S * L]; None without
            padding.
        in_order: the rows are the pack as it is, nothing has to be copied.
        receipts: gets the window of each attention call, where a caller wants to know who called;
            else None.
        exchange: between the ranks that share the pack, where several do.
    """

    sequence_ends: tuple[int, ...]
    groups: tuple[SequenceGroup, ...]
    gather: Tensor
    places: Tensor
    real: Tensor | None
    in_order: bool
    receipts: list[int | None] | None = field(default=None)
    exchange: SequenceExchange | None = field(default=None)

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(group.length for group in self.groups)


def pack_sequences(
    sequence_ends: Sequence[int],
    device: torch.device | str,
    *,
    one_group: bool = False,
    receipts: list[int | None] | None = None,
    exchange: SequenceExchange | None = None,
) -> Packing:
    """Plan the padded batches for a pack; host work and one small copy per index.

    Args:
        sequence_ends: cumulative ends without a leading 0, strictly rising.
        device: where the indices are needed.
        one_group: put all sequences in one batch, however unequal they are.
        receipts: see `Packing`.
        exchange: see `Packing`.

    Raises:
        RequestError: the ends do not rise or there are none.
    """
    ends = torch.tensor(sequence_ends, dtype=torch.int64, device="cpu")
    starts = F.pad(ends, (1, 0))[:-1]
    lengths = ends - starts
    if not len(sequence_ends) or int(lengths.min()) < 1:
        raise RequestError(
            f"sequence_ends={tuple(sequence_ends)} does not describe a pack; give rising ends "
            "such as (3, 7)."
        )
    order = torch.argsort(lengths, descending=True, stable=True)
    groups, gathers, reals = [], [], []
    for first, last in _group_bounds(lengths[order].tolist(), one_group=one_group):
        rows = order[first:last, None]
        length = int(lengths[rows[0]])
        steps = torch.arange(length, device="cpu")
        gathers.append((starts[rows] + torch.minimum(steps, lengths[rows] - 1)).flatten())
        reals.append((steps < lengths[rows]).flatten())
        groups.append(SequenceGroup(num_sequences=last - first, length=length))
    gather, real = torch.cat(gathers), torch.cat(reals)
    places = torch.empty(int(ends[-1]), dtype=torch.int64, device="cpu")
    places[gather[real]] = real.nonzero().flatten()
    padded = not bool(real.all())
    return Packing(
        sequence_ends=tuple(sequence_ends),
        groups=tuple(groups),
        gather=gather.to(device, non_blocking=True),
        places=places.to(device, non_blocking=True),
        real=real.float().to(device, non_blocking=True) if padded else None,
        in_order=len(groups) == 1 and not padded,
        receipts=receipts,
        exchange=exchange,
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


class _Rows(torch.autograd.Function):
    """Copy packed tokens into padded rows; padding has no gradient, the way back selects too."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return tokens.index_select(0, packing.gather)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.index_select(0, ctx.packing.places), None


class _Tokens(torch.autograd.Function):
    """Copy the real places of padded rows back to packed tokens."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return rows.index_select(0, packing.places)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        packing: Packing = ctx.packing
        rows = grad.index_select(0, packing.gather)
        if packing.real is not None:
            rows = rows * packing.real.to(rows.dtype).view(-1, *[1] * (rows.dim() - 1))
        return rows, None


def to_rows(tokens: Tensor, packing: Packing) -> Tensor:
    """Packed tokens [T, ...] -> padded rows of all groups end to end [sum of S * L, ...]."""
    return tokens if packing.in_order else _Rows.apply(tokens, packing)  # type: ignore[no-untyped-call]


def to_tokens(rows: Tensor, packing: Packing) -> Tensor:
    """Padded rows of all groups end to end [sum of S * L, ...] -> packed tokens [T, ...]."""
    return rows if packing.in_order else _Tokens.apply(rows, packing)  # type: ignore[no-untyped-call]
