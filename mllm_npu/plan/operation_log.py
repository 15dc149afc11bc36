"""Write down which kernels and exchanges a step runs; equal ones are counted together."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.fsdp  # registers its kernels
from torch import Tensor
from torch._ops import OpOverload

from mllm_npu.plan.exchange_kinds import (
    exchange_axis,
    exchange_group,
    exchange_kind,
    exchanged_bytes,
    tensors_in,
)
from mllm_npu.plan.kernel_flops import kernel_flops, needed_flops
from mllm_npu.plan.part_watch import PartWatch
from mllm_npu.plan.traced_step import Axis, Exchange, ExchangeKind, Operation, Phase

_ATEN = torch.ops.aten
_FREE = frozenset(
    {
        _ATEN.empty,
        _ATEN.empty_like,
        _ATEN.empty_strided,
        _ATEN.new_empty,
        _ATEN.new_empty_strided,
        _ATEN.lift_fresh,
        _ATEN._local_scalar_dense,
        _ATEN.resize_,
        _ATEN.set_,
    }
)
"""They compute nothing."""
_SET = frozenset(
    {
        _ATEN.fill_,
        _ATEN.zero_,
        _ATEN.uniform_,
        _ATEN.normal_,
        _ATEN.bernoulli_,
        _ATEN.copy_,
        _ATEN._foreach_copy_,
        _ATEN._foreach_zero_,
    }
)
"""They write what they do not read."""
_JOIN = frozenset({torch.ops.fsdp.all_gather_copy_in})
"""They copy a list into a part of what they are given besides."""
_PICK = frozenset({_ATEN.index_select, _ATEN.embedding, _ATEN.index, _ATEN.gather})
"""They read as much of their first tensor as they give."""


@dataclass(frozen=True, slots=True)
class _Key:
    name: str
    part: str
    phase: Phase
    shapes: tuple[tuple[int, ...], ...]
    dtype: str


class OperationLog:
    """Kernels and exchanges of one step of one rank.

    Args:
        parts: says what runs.
        world: number of all ranks.

    Attributes:
        needed_flops: of all kernels, without what is computed again.
        weight: how often what comes now happens in the step.
    """

    def __init__(self, *, parts: PartWatch, world: int) -> None:
        self.parts = parts
        self.world = world
        self.needed_flops = 0.0
        self.weight = 1
        self._calls: Counter[tuple[_Key, float]] = Counter()
        self._bytes: dict[_Key, int] = {}
        self._exchanges: Counter[tuple[ExchangeKind, Axis, int, str, Phase, int]] = Counter()
        self._groups: dict[int, tuple[int, ...]] = {}

    def note(
        self, kernel: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any
    ) -> None:
        """Take in a kernel that is no view and no exchange."""
        if kernel._overloadpacket in _FREE:
            return
        part, phase = self.parts.now()
        given = [*tensors_in(args), *tensors_in(tuple(kwargs.values()))]
        made = [*tensors_in(out)]
        first = (made or given)[:1]
        shapes = tuple(tuple(tensor.shape) for tensor in (*given, *made))
        dtype = str(first[0].dtype).removeprefix("torch.") if first else ""
        key = _Key(_name(kernel), part, phase, shapes, dtype)
        flops = kernel_flops(kernel, args, kwargs, out)
        if not self.parts.runs_again():
            self.needed_flops += self.weight * needed_flops(kernel, flops)
        self._calls[key, flops] += self.weight
        if key not in self._bytes:
            self._bytes[key] = moved_bytes(kernel, args, kwargs, made)

    def note_exchange(self, kernel: OpOverload, args: Sequence[Any], out: Any) -> None:
        """Take in a collective."""
        kind, group = exchange_kind(kernel), exchange_group(args)
        if kind is None or group is None:
            return
        ranks = self._ranks(group)
        axis = exchange_axis(kernel, kind, ranks, self.world)
        self.add_exchange(kind, axis, len(ranks), exchanged_bytes(args, out))

    def add_exchange(self, kind: ExchangeKind, axis: Axis, ranks: int, size: int) -> None:
        """Take in an exchange that no kernel of the device makes, such as one of host numbers."""
        if ranks > 1:
            part, phase = self.parts.now()
            self._exchanges[kind, axis, ranks, part, phase, size] += self.weight

    def operations(self) -> tuple[Operation, ...]:
        """All kernels, equal ones together."""
        return tuple(
            Operation(
                name=key.name,
                part=key.part,
                phase=key.phase,
                shapes=key.shapes,
                dtype=key.dtype,
                flops=flops,
                bytes=self._bytes[key],
                calls=calls,
            )
            for (key, flops), calls in self._calls.items()
        )

    def exchanges(self) -> tuple[Exchange, ...]:
        """All collectives, equal ones together."""
        return tuple(
            Exchange(
                kind=kind, axis=axis, ranks=ranks, part=part, phase=phase, bytes=size, calls=calls
            )
            for (kind, axis, ranks, part, phase, size), calls in self._exchanges.items()
        )

    def _ranks(self, group: dist.ProcessGroup) -> tuple[int, ...]:
        key = id(group)
        if key not in self._groups:
            self._groups[key] = tuple(dist.get_process_group_ranks(group))
        return self._groups[key]


def moved_bytes(
    kernel: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], made: Sequence[Tensor]
) -> int:
    """Bytes a kernel reads and writes, if it touches every value once.

    Args:
        kernel: no view.
        args: with what it is called.
        kwargs: and with what by name.
        made: tensors it gives.
    """
    packet = kernel._overloadpacket
    if packet in _JOIN:
        return 2 * _sizes(args[0])
    given = {argument.name: argument for argument in kernel._schema.arguments}
    values = [*zip(given, args, strict=False), *kwargs.items()]
    read = written = 0
    for place, (name, value) in enumerate(values):
        size, argument = _sizes(value), given[name]
        if argument.alias_info is not None and argument.alias_info.is_write:
            written += size
            read += 0 if argument.is_out or packet in _SET else size
        elif place == 0 and packet in _PICK:
            read += _sizes(made)
        else:
            read += size
    if any(entry.alias_info is None for entry in kernel._schema.returns):
        written += _sizes(made)
    return read + written


def _sizes(value: Any) -> int:
    return sum(map(_size, tensors_in(value)))


@functools.cache
def is_view(kernel: OpOverload) -> bool:
    """Whether a kernel gives another look at what it is given."""
    returns = kernel._schema.returns
    aliases = [entry.alias_info for entry in returns]
    own = kernel._overloadpacket is _ATEN._unsafe_view
    return own or any(alias is not None and not alias.is_write for alias in aliases)


@functools.cache
def _name(kernel: OpOverload) -> str:
    return str(kernel._overloadpacket)


def _size(tensor: Tensor) -> int:
    """Bytes that are there; an expanded tensor has fewer than values."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())
