"""Say how much of a device a caching allocator takes to hand out what a step asks for.

It takes segments of the device and cuts blocks from them; a block that is free again can be used
for what fits into it, and what is left over is lost until its neighbours are free too. So it takes
more than it has handed out. Here it is played with the requests of a dry run in their order.

Source: CUDACachingAllocator of torch, from which NPUCachingAllocator of torch_npu is derived: its
    constants, best fit, splitting and merging.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

_MIB = 1 << 20
_SMALL = _MIB
"""Requests up to this come from segments of their own kind."""
_SMALL_SEGMENT, _LARGE_SEGMENT = 2 * _MIB, 20 * _MIB
_OWN_SEGMENT = 10 * _MIB
"""Requests from this on get a segment of their size, a multiple of _ROUND."""
_ROUND = 2 * _MIB
_LEAST_REST = 512
"""What is left of a block of a small segment is kept apart from this on; of a large one, _SMALL."""


@dataclass(slots=True, eq=False)
class _Block:
    """A stretch of a segment.

    Args:
        size: in bytes.
        address: where it begins.
        is_small: whether its segment is for small requests.
        before, after: its neighbours in the segment.
        is_free: whether nobody has it.
    """

    size: int
    address: int
    is_small: bool
    before: _Block | None = None
    after: _Block | None = None
    is_free: bool = True


class CachingAllocator:
    """One stream's part of a caching allocator.

    Attributes:
        reserved: bytes of the device it has taken.
    """

    def __init__(self) -> None:
        self.reserved = 0
        self._free: dict[bool, list[tuple[int, int, _Block]]] = {True: [], False: []}
        self._held: dict[int, _Block] = {}

    def take(self, number: int, size: int) -> None:
        """Hand out a block.

        Args:
            number: of the request, unlike that of any other block that is out.
            size: in bytes, rounded as the allocator rounds.
        """
        is_small = size <= _SMALL
        free = self._free[is_small]
        place = bisect_left(free, (size,))
        block = free.pop(place)[2] if place < len(free) else self._segment(size, is_small)
        rest = block.size - size
        if rest >= _LEAST_REST if is_small else rest > _SMALL:
            self._cut(block, size)
        block.is_free = False
        self._held[number] = block

    def give(self, number: int) -> None:
        """Take a block back."""
        block = self._held.pop(number)
        before, after = block.before, block.after
        if before is not None and before.is_free:
            self._drop(before)
            before.size += block.size
            before.after = after
            if after is not None:
                after.before = before
            block = before
        if after is not None and after.is_free:
            self._drop(after)
            block.size += after.size
            block.after = after.after
            if after.after is not None:
                after.after.before = block
        block.is_free = True
        self._keep(block)

    def _segment(self, size: int, is_small: bool) -> _Block:
        if is_small:
            taken = _SMALL_SEGMENT
        elif size < _OWN_SEGMENT:
            taken = _LARGE_SEGMENT
        else:
            taken = -(-size // _ROUND) * _ROUND
        address = self.reserved
        self.reserved += taken
        return _Block(size=taken, address=address, is_small=is_small)

    def _cut(self, block: _Block, size: int) -> None:
        rest = _Block(
            size=block.size - size,
            address=block.address + size,
            is_small=block.is_small,
            before=block,
            after=block.after,
        )
        if block.after is not None:
            block.after.before = rest
        block.after, block.size = rest, size
        self._keep(rest)

    def _keep(self, block: _Block) -> None:
        insort(self._free[block.is_small], (block.size, block.address, block))

    def _drop(self, block: _Block) -> None:
        free = self._free[block.is_small]
        del free[bisect_left(free, (block.size, block.address))]


def reserved_bytes(before: Mapping[int, int], requests: Iterable[tuple[int, int, str]]) -> int:
    """What an allocator has taken of the device at the end; it gives nothing back by itself.

    Args:
        before: what was there at the beginning: numbers and sizes.
        requests: in their order the number of each, by how many bytes it grows, or that it goes
            (a negative number), and the stream it belongs to.
    """
    streams: dict[str, CachingAllocator] = {}
    owners: dict[int, CachingAllocator] = {}
    started = ((number, size, "") for number, size in before.items())
    for number, change, stream in chain(started, requests):
        if change > 0:
            owners[number] = streams.setdefault(stream, CachingAllocator())
            owners[number].take(number, change)
        elif number in owners:
            owners.pop(number).give(number)
    return sum(allocator.reserved for allocator in streams.values())
