"""The ranks of a run: who am I, and sums over everybody."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Self

import torch
import torch.distributed as dist
from torch import Tensor

from mllm_npu.device.platform import platform_of
from mllm_npu.errors import ConfigError


class Mesh:
    """The processes that train one model together.

    Host numbers are summed over gloo, so that counting targets never waits for an accelerator.

    Args:
        rank: number of this process.
        world_size: number of processes; more than one needs an initialised default process group.
    """

    def __init__(self, *, rank: int, world_size: int) -> None:
        if not 0 <= rank < world_size:
            raise ConfigError(
                f"rank {rank} of {world_size} processes was asked for. "
                "Ranks go from 0 to world size - 1; start with torchrun, which sets both."
            )
        self.rank = rank
        self.world_size = world_size

    @classmethod
    def single(cls) -> Self:
        """The mesh of one process; no process group is made."""
        return cls(rank=0, world_size=1)

    @classmethod
    def from_environment(cls, device: torch.device, *, timeout_seconds: float = 600.0) -> Self:
        """The mesh torchrun describes in RANK and WORLD_SIZE, or the single one without them.

        Args:
            device: where the gradients are.
            timeout_seconds: a collective that takes longer ends the run instead of hanging.
        """
        if "RANK" not in os.environ:
            return cls.single()
        if not dist.is_initialized():
            backend = "gloo"
            if device.type != "cpu":
                backend = f"cpu:gloo,{device.type}:{platform_of(device).collective_backend}"
            dist.init_process_group(backend, timeout=timedelta(seconds=timeout_seconds))
        return cls(rank=dist.get_rank(), world_size=dist.get_world_size())

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def sum(self, values: Mapping[str, float]) -> dict[str, float]:
        """Add up host numbers over all ranks; every rank must give the same names."""
        if self.world_size == 1:
            return dict(values)
        names = sorted(values)
        numbers = torch.tensor([float(values[name]) for name in names], dtype=torch.float64)
        dist.all_reduce(numbers)
        return dict(zip(names, numbers.tolist(), strict=True))

    def any(self, flag: bool) -> bool:
        """Whether the flag is up on at least one rank."""
        return self.sum({"flag": float(flag)})["flag"] > 0

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Add up gradients over all ranks in place; a loss is a share of the whole step's."""
        if self.world_size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not gradients:
            return
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Give every rank the values rank 0 has, in place."""
        if self.world_size == 1:
            return
        for tensor in tensors:
            dist.broadcast(tensor.detach(), src=0)

    def barrier(self) -> None:
        """Wait until every rank has come here."""
        if self.world_size > 1:
            dist.barrier()

    def close(self) -> None:
        """Leave the process group."""
        if self.world_size > 1 and dist.is_initialized():
            dist.destroy_process_group()
