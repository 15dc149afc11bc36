"""Ranks that are only imagined: this process is rank 0 of any number, and exchanges do nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
import torch.distributed as dist
import torch.nn.parallel.distributed as replication
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import _disable_current_modes

from mllm_npu.distributed import placed
from mllm_npu.distributed.mesh import Mesh
from mllm_npu.distributed.parallel import Parallel
from mllm_npu.errors import ConfigError


class FakeMesh(Mesh):
    """The mesh of imagined ranks; groups are made for real, though tensors are fake around them."""

    def shards(self, device: torch.device) -> DeviceMesh:
        """See Mesh."""
        with _disable_current_modes():
            return super().shards(device)

    def sequence_group(self, device: torch.device) -> dist.ProcessGroup:
        """See Mesh."""
        with _disable_current_modes():
            return super().sequence_group(device)


@contextmanager
def fake_ranks(parallel: Parallel, ranks: int) -> Iterator[FakeMesh]:
    """Be rank 0 of some ranks while this is open.

    Args:
        parallel: how they work together.
        ranks: how many.

    Raises:
        ConfigError: they do not fit together, or this process belongs to real ranks.
    """
    mesh = FakeMesh(
        rank=0,
        world_size=ranks,
        replicas=parallel.replicas,
        sequence_size=parallel.sequence_size,
    )
    if parallel.kind == "single" and ranks > 1:
        raise ConfigError(
            f"parallel=single was asked for, and {ranks} ranks. "
            "Choose parallel=ddp, fsdp2 or hsdp, or plan for one rank."
        )
    if dist.is_initialized():
        raise ConfigError(
            "A dry run was asked for in a process that belongs to a process group. Plan in a "
            "process of its own."
        )
    if ranks == 1 and not parallel.shards:
        yield mesh
        return
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)
    try:
        with _without_values():
            yield mesh
    finally:
        dist.destroy_process_group()


@contextmanager
def _without_values() -> Iterator[None]:
    """Let DistributedDataParallel do with fake tensors, whose values it cannot compare or send."""
    nothing = "_verify_param_shape_across_processes", "_sync_module_states"
    with (
        patch.object(replication, nothing[0], lambda *args, **settings: None),
        patch.object(replication, nothing[1], lambda *args, **settings: None),
        patch.object(placed, "sum_bucket", _sum_bucket),
    ):
        yield


# Its annotations are looked at when it is registered, so they must not be texts; without any it may
# have them left out.
def _sum_bucket(_, bucket):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """As `gradient_sum.sum_bucket`; an imagined exchange hands back no tensor."""
    buffer: Tensor = bucket.buffer()
    dist.all_reduce(buffer)
    done: torch.futures.Future[Tensor] = torch.futures.Future()
    done.set_result(buffer)
    return done
