"""Who holds how much memory of a device at which moment of a step, from the life of its tensors.

Every storage is noted as it comes, changes its size and goes. What it was for is known at its end:
what a forward pass leaves for the backward pass is an activation, what ends where it began is
temporary. So the moments are written down, and the kinds are put in afterwards.
"""

from __future__ import annotations

import weakref
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args
from unittest.mock import patch

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from mllm_npu.device.allocator import Blocks
from mllm_npu.plan.reserved_memory import reserved_bytes

Kind = Literal[
    "parameters",
    "gradients",
    "optimizer",
    "activations",
    "unsharded",
    "exchange",
    "temporary",
    "inputs",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
HELD: tuple[Kind, ...] = ("parameters", "gradients", "optimizer")
"""What offload keeps on the host."""


@dataclass(slots=True)
class _Life:
    """Of one storage.

    Args:
        number: of the storage.
        size: bytes that the device takes for it now.
        kind: what it is for, where that is known.
        in_forward: whether a forward pass made it, also one that is run again.
    """

    number: int
    size: int
    kind: Kind | None
    in_forward: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What lay on the device.

    Args:
        total: in bytes.
        by_kind: the same by kind.
    """

    total: int
    by_kind: dict[Kind, int]


class MemoryLedger:
    """The storages of a fake device.

    Args:
        blocks: how the device's allocator rounds.
        in_forward: says whether a forward pass runs now, also one that is run again.
    """

    def __init__(self, *, blocks: Blocks, in_forward: Callable[[], bool]) -> None:
        self.blocks = blocks
        self.in_forward = in_forward
        self.changes = array("q")
        """Pairs: number of a storage, and by how many bytes it grows."""
        self._lives: dict[int, _Life] = {}
        self._references: dict[int, Any] = {}
        self._kinds: list[Kind | None] = []
        self._before: Counter[int] = Counter()
        if blocks.workspace:
            self._kinds.append("temporary")
            self._before[0] = blocks.workspace

    def note(self, tensor: Tensor, kind: Kind | None = None, *, before: bool = False) -> None:
        """Take in a tensor, or say what one is for that is there.

        Args:
            tensor: any; of a sharded one the rows of this rank.
            kind: what it is for; None leaves it open.
            before: it was there before the step.
        """
        local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        storage = local.untyped_storage()
        life = self._lives.get(storage._cdata)
        if life is None:
            self._begin(storage, kind, before=before)
        elif kind is not None:
            life.kind = kind
            self._kinds[life.number] = kind

    def knows(self, tensor: Tensor) -> bool:
        """Whether the storage of a tensor was taken in."""
        return tensor.untyped_storage()._cdata in self._lives

    def tag(self, tensors: Iterable[Tensor | None], kind: Kind) -> None:
        """Say what tensors are for; those without memory are left out."""
        for tensor in tensors:
            if tensor is not None:
                self.note(tensor, kind, before=True)

    def kind_of(self, tensor: Tensor) -> Kind | None:
        """What the storage of a tensor is for, where that is known."""
        life = self._lives.get(tensor.untyped_storage()._cdata)
        return None if life is None else life.kind

    @contextmanager
    def watching_sizes(self) -> Iterator[None]:
        """Note storages that are emptied and filled again, as FSDP does with what it gathers."""
        resize = torch.UntypedStorage.resize_

        def resized(storage: torch.UntypedStorage, size: int) -> Any:
            result = resize(storage, size)
            life = self._lives.get(storage._cdata)
            if life is not None:
                taken = self.blocks.take(storage.nbytes())
                self._change(life.number, taken - life.size)
                life.size = taken
            return result

        with patch.object(torch.UntypedStorage, "resize_", resized):
            yield

    def now(self, *, leave_out: Iterable[Kind] = ()) -> Moment:
        """What lies there now."""
        sizes = Counter(self._before)
        for number, change in self._pairs():
            sizes[number] += change
        return self._moment(sizes, frozenset(leave_out))

    def peak(self, *, leave_out: Iterable[Kind] = ()) -> Moment:
        """What lay there at the fullest moment.

        Args:
            leave_out: kinds that lie elsewhere.
        """
        away = frozenset(leave_out)
        total = sum(size for number, size in self._before.items() if self._kind(number) not in away)
        most, at = total, 0
        for place, (number, change) in enumerate(self._pairs(), 1):
            if self._kind(number) not in away:
                total += change
                if total > most:
                    most, at = total, place
        sizes = Counter(self._before)
        for place, (number, change) in enumerate(self._pairs(), 1):
            if place > at:
                break
            sizes[number] += change
        return self._moment(sizes, away)

    def reserved(self, *, leave_out: Iterable[Kind] = ()) -> int:
        """What a caching allocator takes of the device for all this.

        Args:
            leave_out: kinds that lie elsewhere.
        """
        away = frozenset(leave_out)
        before = {n: size for n, size in self._before.items() if self._kind(n) not in away}
        requests = (
            (number, change, "exchange" if self._kinds[number] == "exchange" else "")
            for number, change in self._pairs()
            if self._kind(number) not in away
        )
        return reserved_bytes(before, requests)

    def _moment(self, sizes: Counter[int], away: frozenset[Kind]) -> Moment:
        by_kind: dict[Kind, int] = dict.fromkeys(KINDS, 0)
        for number, size in sizes.items():
            by_kind[self._kind(number)] += size
        for kind in away:
            by_kind[kind] = 0
        return Moment(total=sum(by_kind.values()), by_kind=by_kind)

    def _pairs(self) -> Iterator[tuple[int, int]]:
        changes = iter(self.changes)
        return zip(changes, changes, strict=True)

    def _kind(self, number: int) -> Kind:
        return self._kinds[number] or "temporary"

    def _begin(self, storage: torch.UntypedStorage, kind: Kind | None, *, before: bool) -> None:
        number, size = len(self._kinds), self.blocks.take(storage.nbytes())
        key = storage._cdata
        self._kinds.append(kind)
        self._lives[key] = _Life(number, size, kind, self.in_forward())
        self._references[key] = weakref.ref(storage, lambda _: self._end(key))
        if before:
            self._before[number] = size
        else:
            self._change(number, size)

    def _end(self, key: int) -> None:
        life = self._lives.pop(key)
        del self._references[key]
        self._change(life.number, -life.size)
        if life.kind is None and life.in_forward and not self.in_forward():
            self._kinds[life.number] = "activations"

    def _change(self, number: int, change: int) -> None:
        if change:
            self.changes.append(number)
            self.changes.append(change)
