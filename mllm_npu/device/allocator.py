"""What the allocator of a device takes for a tensor."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """How requests are rounded.

    Args:
        grain: blocks are multiples of this, in bytes.
        tail: bytes behind the data that belong to the block.
        workspace: bytes that libraries of the device take from it for a process's whole life.
    """

    grain: int
    tail: int = 0
    workspace: int = 0

    def take(self, size: int) -> int:
        """Bytes taken for a tensor of ``size`` bytes; an empty one takes none."""
        return 0 if size == 0 else -(-(size + self.tail) // self.grain) * self.grain


_BLOCKS = {
    "npu": Blocks(grain=512, tail=32),
    # cuBLAS keeps 32 MiB for each of the two threads of a step, cuBLASLt 1 MiB; what was measured
    # on a Hopper card, older ones take less.
    "cuda": Blocks(grain=512, workspace=65 << 20),
    "cpu": Blocks(grain=1),
}
_OTHERS = Blocks(grain=512)


def blocks_of(device: str) -> Blocks:
    """How the allocator of a kind of device rounds.

    Source: NPUCachingAllocator of torch_npu and CUDACachingAllocator of torch: kMinBlockSize, and
        the padding the former adds.
    """
    return _BLOCKS.get(device, _OTHERS)
