"""The ranks of a run: who am I, who sees my data, and sums over everybody."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Self

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from mllm_npu.device.platform import platform_of
from mllm_npu.distributed.progress import Progress
from mllm_npu.errors import ConfigError


class Mesh:
    """The processes that train one model together.

    Ranks that follow each other share a sequence: they see the same data and split its tokens.
    Host numbers are summed over gloo, so that counting targets never waits for an accelerator.

    Args:
        rank: number of this process.
        world_size: number of processes; more than one needs an initialised default process group.
        replicas: groups of ranks that hold the whole model between them.
        sequence_size: ranks that share a sequence.

    Attributes:
        data_rank: number of this rank's data among those that differ.
        data_size: how many ranks see data of their own.
        timeout_seconds: how long an exchange may take.
        progress: what this process is doing; every collective is noted there.

    Raises:
        ConfigError: the numbers do not go into each other.
    """

    def __init__(
        self, *, rank: int, world_size: int, replicas: int = 1, sequence_size: int = 1
    ) -> None:
        if not 0 <= rank < world_size:
            raise ConfigError(
                f"rank {rank} of {world_size} processes was asked for. "
                "Ranks go from 0 to world size - 1; start with torchrun, which sets both."
            )
        for name, size in (("replicas", replicas), ("sequence_size", sequence_size)):
            if size < 1 or world_size % size:
                raise ConfigError(
                    f"parallel.{name}={size} was asked for, and {world_size} processes were "
                    f"started. Give a number that divides {world_size}, or start a multiple of it."
                )
        if (world_size // replicas) % sequence_size:
            raise ConfigError(
                f"parallel.replicas={replicas} and parallel.sequence_size={sequence_size} were "
                f"asked for, and {world_size} processes were started. The ranks of a sequence must "
                f"lie in one replica of {world_size // replicas} ranks."
            )
        self.rank = rank
        self.world_size = world_size
        self.replicas = replicas
        self.sequence_size = sequence_size
        self.data_rank = rank // sequence_size
        self.data_size = world_size // sequence_size
        self.timeout_seconds = 600.0
        self.progress = Progress()
        self._known_names: list[str] = []

    @classmethod
    def single(cls) -> Self:
        """A mesh of one process, without a process group."""
        return cls(rank=0, world_size=1)

    @classmethod
    def start(
        cls,
        device: torch.device,
        *,
        replicas: int = 1,
        sequence_size: int = 1,
        timeout_seconds: float = 600.0,
        alone: bool = False,
    ) -> Self:
        """The mesh torchrun describes in RANK and WORLD_SIZE, or one process without them.

        Args:
            device: where the gradients are; an accelerator is chosen by LOCAL_RANK.
            replicas: see the class.
            sequence_size: see the class.
            timeout_seconds: a collective that takes longer ends the run instead of hanging.
            alone: make a process group even for one process, which sharding needs.
        """
        if "RANK" not in os.environ and not alone:
            mesh = cls(rank=0, world_size=1, replicas=replicas, sequence_size=sequence_size)
            mesh.timeout_seconds = timeout_seconds
            return mesh
        if device.type != "cpu":
            torch.accelerator.set_device_index(int(os.environ.get("LOCAL_RANK", "0")))
        rank, world_size = (int(os.environ.get(n, d)) for n, d in (("RANK", 0), ("WORLD_SIZE", 1)))
        mesh = cls(rank=rank, world_size=world_size, replicas=replicas, sequence_size=sequence_size)
        mesh.timeout_seconds = timeout_seconds
        if not dist.is_initialized():
            dist.init_process_group(
                _backend(device),
                timeout=timedelta(seconds=timeout_seconds),
                rank=rank,
                world_size=world_size,
                store=None if "RANK" in os.environ else dist.HashStore(),
            )
        return mesh

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def shards(self, device: torch.device) -> DeviceMesh:
        """Ranks among which parameters are sharded, [ranks] or [replicas, ranks of a replica]."""
        if self.replicas == 1:
            return init_device_mesh(device.type, (self.world_size,), mesh_dim_names=("shard",))
        sizes = (self.replicas, self.world_size // self.replicas)
        return init_device_mesh(device.type, sizes, mesh_dim_names=("replicate", "shard"))

    def sequence_group(self, device: torch.device) -> dist.ProcessGroup:
        """The ranks that share this rank's sequence."""
        sizes = (self.data_size, self.sequence_size)
        ranks = init_device_mesh(device.type, sizes, mesh_dim_names=("data", "sequence"))
        return ranks.get_group("sequence")

    def sum(self, values: Mapping[str, float]) -> dict[str, float]:
        """Add up host numbers over all ranks; every rank must give the same names."""
        if self.world_size == 1:
            return dict(values)
        names = sorted(values)
        numbers = torch.tensor([float(values[name]) for name in names], dtype=torch.float64)
        with self.progress.inside(f"sum of {', '.join(names[:4])} over all ranks"):
            dist.all_reduce(numbers)
        return dict(zip(names, numbers.tolist(), strict=True))

    def sum_open(self, values: Mapping[str, float]) -> dict[str, float]:
        """Add up host numbers over all ranks, each of which may have names of its own."""
        if self.world_size == 1:
            return dict(values)
        if self.any(bool(set(values) - set(self._known_names))):
            found: list[list[str]] = [[] for _ in range(self.world_size)]
            with self.progress.inside("exchange of names over all ranks"):
                dist.all_gather_object(found, sorted(values))
            self._known_names = sorted({*self._known_names, *(n for names in found for n in names)})
        return self.sum({name: values.get(name, 0.0) for name in self._known_names})

    def any(self, flag: bool) -> bool:
        """Whether the flag is up on at least one rank."""
        return self.sum({"flag": float(flag)})["flag"] > 0

    def from_main(self, value: int) -> int:
        """The number rank 0 has."""
        return int(self.sum({"number": float(value) if self.is_main else 0.0})["number"])

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Give every rank the values rank 0 has, in place."""
        if self.world_size == 1:
            return
        for tensor in tensors:
            with self.progress.inside("broadcast from rank 0"):
                dist.broadcast(tensor.detach(), src=0)

    def barrier(self) -> None:
        """Wait until every rank has come here."""
        if self.world_size > 1:
            with self.progress.inside("barrier"):
                dist.barrier()

    def close(self) -> None:
        """Leave the process group, all ranks together."""
        leave()


def leave() -> None:
    """Leave the process group, where there is one, once every rank has come here."""
    if dist.is_initialized():
        # Without it threads of gloo sometimes end the interpreter that leaves first.
        dist.barrier()
        dist.destroy_process_group()


def _backend(device: torch.device) -> str:
    """Gloo for host numbers, the device's own for the rest."""
    if device.type == "cpu":
        return "gloo"
    return f"cpu:gloo,{device.type}:{platform_of(device).collective_backend}"
