"""Which rows of a sharded parameter this rank keeps, and how they become the parameter."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from mllm_npu.errors import WeightsError


def own_rows(slot: DTensor) -> tuple[int, int]:
    """First row of this rank and the one behind its last; equal where it keeps none.

    Rows are shared out as ``torch.chunk`` does, which is FSDP2's way.

    Raises:
        WeightsError: the parameter is sharded along another dimension than its rows.
    """
    begin, end = 0, slot.shape[0] if slot.ndim else 1
    for dimension, placement in enumerate(slot.placements):
        if placement.is_replicate():
            continue
        if not isinstance(placement, Shard) or placement.dim != 0:
            raise WeightsError(
                f"A parameter of shape {list(slot.shape)} is placed as {placement}; only rows that "
                "are shared out can be filled."
            )
        ranks, rank = slot.device_mesh.size(dimension), slot.device_mesh.get_local_rank(dimension)
        rows = -(-(end - begin) // ranks)
        begin, end = min(begin + rank * rows, end), min(begin + (rank + 1) * rows, end)
    return begin, end


def from_own_rows(rows: Tensor, slot: DTensor, device: torch.device | None = None) -> DTensor:
    """The sharded parameter whose rows of this rank are given.

    Args:
        rows: of ``own_rows``, of the slot's dtype.
        slot: gives shape and placement.
        device: where the rows go; None: the type of device the ranks compute on.
    """
    own = rows.to(device or torch.device(slot.device_mesh.device_type)).contiguous()
    if own.untyped_storage().nbytes() != own.nbytes:
        # A view of something larger keeps all of it, and goes into no checkpoint.
        own = own.clone()
    return DTensor.from_local(
        own,
        slot.device_mesh,
        slot.placements,
        run_check=False,
        shape=slot.shape,
        stride=slot.stride(),
    )
