"""What every rank finds about the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mllm_npu.distributed.gradient_sum import sum_bucket
from mllm_npu.distributed.mesh import Mesh

CPU = torch.device("cpu")


def exchange(folder: Path) -> dict[str, Any]:
    """Sums, names, flags and values of the main rank, on four ranks."""
    mesh = Mesh.start(CPU, timeout_seconds=30)
    again = Mesh.start(CPU, replicas=2, sequence_size=2, timeout_seconds=30)
    numbers = [torch.tensor(mesh.rank == 0), torch.tensor([mesh.rank + 5.0])]
    mesh.broadcast(numbers)
    found = {
        "rank": mesh.rank,
        "main": mesh.is_main,
        "data": (again.data_rank, again.data_size),
        "shards": [again.shards(CPU).get_local_rank(d) for d in ("replicate", "shard")],
        "sequence": dist.get_process_group_ranks(again.sequence_group(CPU)),
        "sum": mesh.sum({"b": mesh.rank, "a": 2.5}),
        "open": mesh.sum_open({"all": 1.0, f"of {mesh.rank % 2}": 10.0 + mesh.rank}),
        "open again": mesh.sum_open({} if mesh.rank else {"all": 3.0}),
        "new name": mesh.sum_open({"late": 4.0} if mesh.rank == 3 else {"all": 1.0}),
        "any": mesh.any(mesh.rank == 1),
        "none": mesh.any(False),
        "from main": mesh.from_main(100 + mesh.rank),
        "negative": mesh.from_main(-2 - mesh.rank),
        "broadcast": [number.tolist() for number in numbers],
        "gradient": summed_gradient(mesh.rank),
    }
    mesh.barrier()
    found["progress"] = [mesh.progress.collective, mesh.progress.inside_collective]
    return found


def summed_gradient(rank: int) -> list[float]:
    """Of a loss in which each rank weighs the same weight by its number + 1."""
    layer = nn.Linear(2, 1, bias=False)
    call = DistributedDataParallel(layer)
    call.register_comm_hook(None, sum_bucket)
    call(torch.ones(1, 2) * (rank + 1)).sum().backward()
    assert layer.weight.grad is not None
    return layer.weight.grad[0].tolist()
