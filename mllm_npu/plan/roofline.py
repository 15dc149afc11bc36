"""Seconds an operation takes by the numbers of a card: work over speed, plus its start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mllm_npu.plan.cluster import Cluster
from mllm_npu.plan.collectives import exchange_seconds
from mllm_npu.plan.traced_step import Exchange, Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Seconds of one call, by what they are spent on; two of them are 0 beside the larger bound.

    Args:
        compute: bound by FLOPs.
        memory: bound by the bandwidth of the memory.
        launch: beside the work.
    """

    compute: float = 0.0
    memory: float = 0.0
    launch: float = 0.0

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.compute + self.memory + self.launch


class Rates(Protocol):
    """Says how long things take on one kind of device."""

    host_seconds: float
    """The host needs for each operation while the device computes; 0 where they are one."""

    overlaps: bool
    """Whether exchanges run beside computation."""

    slowdown: float
    """Factor on computation, where ranks share their cores."""

    def operation(self, operation: Operation) -> Cost:
        """Of one call."""

    def exchange(self, exchange: Exchange) -> float:
        """Seconds of one call."""


class Roofline:
    """Rates by the card of a cluster.

    Args:
        cluster: where the step runs.
        stride: ranks of a replica.
    """

    slowdown = 1.0
    overlaps = True

    def __init__(self, *, cluster: Cluster, stride: int) -> None:
        self.cluster = cluster
        self.stride = stride
        self.host_seconds = cluster.accelerator.host_us * 1e-6
        self._memory_rate = cluster.accelerator.bandwidth_gb * 1e9 * cluster.efficiency.memory
        self._peaks: dict[str, float] = {}

    def operation(self, operation: Operation) -> Cost:
        """Of one call: the larger of computing and moving bytes, and the start of the kernel."""
        device = self.cluster.accelerator
        memory = operation.bytes / self._memory_rate
        if not operation.flops:
            return Cost(memory=memory, launch=device.launch_us * 1e-6)
        compute = operation.flops / self._flops_rate(operation.dtype)
        launch = device.matrix_launch_us * 1e-6
        if compute >= memory:
            return Cost(compute=compute, launch=launch)
        return Cost(memory=memory, launch=launch)

    def exchange(self, exchange: Exchange) -> float:
        """Seconds of one call over the links of the cluster."""
        return exchange_seconds(exchange, self.cluster, stride=self.stride)

    def _flops_rate(self, dtype: str) -> float:
        if dtype not in self._peaks:
            peak = self.cluster.accelerator.peak_flops(dtype)
            self._peaks[dtype] = peak * self.cluster.efficiency.compute
        return self._peaks[dtype]
