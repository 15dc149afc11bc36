"""Be one of many ranks without the others; exchanges give nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore


@contextmanager
def pretended_ranks(rank: int, *sizes: int) -> Iterator[DeviceMesh]:
    """The mesh of ``sizes``, in which this process is number ``rank``."""
    world_size = 1
    for size in sizes:
        world_size *= size
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world_size)
    try:
        names = ("replicate", "shard")[-len(sizes) :]
        yield init_device_mesh("cpu", sizes, mesh_dim_names=names)
    finally:
        dist.destroy_process_group()
