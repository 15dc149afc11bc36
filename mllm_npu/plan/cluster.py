"""A cluster as a planner sees it: accelerators, links, what they cost and how often they fail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from mllm_npu.device.peaks import peak_named
from mllm_npu.errors import ConfigError

GIB = 1 << 30
_HALF = ("bfloat16", "float16")
"""Matrices of both are multiplied at one speed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """One device: a die, where a package holds several.

    Args:
        name: under which it reports itself; its peak FLOPs are a row of ``device/peaks.py``.
        kind: torch's device type.
        memory_gib: on the device.
        usable_share: of it, what a run can have; drivers and libraries take the rest.
        bandwidth_gb: of its memory, 10^9 bytes per second.
        launch_us: microseconds a kernel costs beside its work, on the device.
        matrix_launch_us: the same of a matrix product.
        host_us: microseconds the host needs to issue one operation; the device waits where its own
            work is shorter.
        host_link_gb: between device and host, 10^9 bytes per second and direction.
        peak_tflops: 10^12 operations per second by dtype, where the table has no such device, or
            instead of its row.
        sources: of the numbers.
    """

    name: str
    kind: str
    memory_gib: float
    usable_share: float
    bandwidth_gb: float
    launch_us: float
    matrix_launch_us: float
    host_us: float
    host_link_gb: float
    peak_tflops: Mapping[str, float] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require_positive(
            f"cluster.accelerator ({self.name})",
            memory_gib=self.memory_gib,
            bandwidth_gb=self.bandwidth_gb,
            host_link_gb=self.host_link_gb,
            usable_share=self.usable_share,
        )
        if self.usable_share > 1:
            raise ConfigError(
                f"cluster.accelerator.usable_share={self.usable_share} was asked for. "
                "Give a share of the memory, above 0 and at most 1."
            )

    def peak_flops(self, dtype: str) -> float:
        """Operations per second at best, in a dtype by its name.

        Raises:
            ConfigError: the table does not know the device.
        """
        names = _HALF if dtype in _HALF else (dtype, "float32")
        for name in names:
            if name in self.peak_tflops:
                return self.peak_tflops[name] * 1e12
        kind = torch.bfloat16 if dtype in _HALF else torch.float32
        row = peak_named(self.name, kind)
        if row is None:
            raise ConfigError(
                f"cluster.accelerator.name={self.name!r} was asked for, and no row of "
                f"mllm_npu/device/peaks.py knows its peak in {dtype}. Add "
                f"cluster.accelerator.peak_tflops.{dtype}=... to the card, or correct the name."
            )
        return row.flops

    @property
    def usable_bytes(self) -> float:
        """Memory a run can have."""
        return self.memory_gib * GIB * self.usable_share


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What carries exchanges.

    Args:
        bandwidth_gb: 10^9 bytes per second of one rank in each direction.
        latency_us: microseconds from rank to rank.
        source: of the numbers.
    """

    bandwidth_gb: float
    latency_us: float
    source: str = ""

    def __post_init__(self) -> None:
        _require_positive("a link of the cluster", bandwidth_gb=self.bandwidth_gb)


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiency:
    """Shares of the published peaks that well-made software reaches.

    Args:
        compute: of FLOPs, by matrix products.
        memory: of the memory's bandwidth.
        exchange: of a link's bandwidth, by collectives.
        source: of the numbers.
    """

    compute: float
    memory: float
    exchange: float
    source: str = ""

    def __post_init__(self) -> None:
        shares = {"compute": self.compute, "memory": self.memory, "exchange": self.exchange}
        _require_positive("cluster.efficiency", **shares)
        over = {name: share for name, share in shares.items() if share > 1}
        if over:
            raise ConfigError(
                f"cluster.efficiency has {over}. Give shares of a peak, above 0 and at most 1."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Nodes of devices.

    Args:
        name: of the card.
        accelerator: one device.
        num_nodes: how many nodes.
        node_size: devices of a node.
        inside: links between the devices of a node.
        between: links between nodes.
        efficiency: shares of the peaks.
        host_memory_gib: of a node.
        host_bandwidth_gb: of a node's host memory, 10^9 bytes per second.
        storage_gb: 10^9 bytes per second at which all ranks together write a checkpoint.
        failure_hours: mean time between failures of one device that stop a run, hours.
        restart_seconds: from a failure until the run trains again.
        price_per_hour: of one device; null where it is not known.
        sources: of the numbers that have none of their own.
        is_here: whether it is the machine at hand, on which operations are measured.

    Raises:
        ConfigError: numbers that no cluster has.
    """

    name: str
    accelerator: Accelerator
    num_nodes: int
    node_size: int
    inside: Link
    between: Link
    efficiency: Efficiency
    host_memory_gib: float
    host_bandwidth_gb: float
    storage_gb: float
    failure_hours: float
    restart_seconds: float
    price_per_hour: float | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    is_here: bool = False

    def __post_init__(self) -> None:
        for name, count in (("num_nodes", self.num_nodes), ("node_size", self.node_size)):
            if count < 1:
                raise ConfigError(
                    f"cluster.{name}={count} was asked for, and a cluster has at least one node "
                    "with one device. Give a number from 1 on."
                )
        _require_positive(
            "cluster",
            host_memory_gib=self.host_memory_gib,
            host_bandwidth_gb=self.host_bandwidth_gb,
            storage_gb=self.storage_gb,
            failure_hours=self.failure_hours,
        )
        for name, number in (
            ("restart_seconds", self.restart_seconds),
            ("price_per_hour", self.price_per_hour or 0.0),
        ):
            if number < 0:
                raise ConfigError(f"cluster.{name}={number} was asked for. Use 0 or more.")

    @property
    def ranks(self) -> int:
        """One per device."""
        return self.num_nodes * self.node_size

    @property
    def describes(self) -> str:
        """The cluster in a few words."""
        nodes = f"{self.num_nodes} nodes of {self.node_size}" if self.num_nodes > 1 else "one node"
        return f"{self.ranks} x {self.accelerator.name} ({nodes})"

    def check_ranks(self, *, kind: str, replicas: int, sequence_size: int) -> None:
        """Refuse parallel settings that the ranks cannot be shared out to.

        Args:
            kind: of parallel.
            replicas: groups of ranks that hold the whole model between them.
            sequence_size: ranks that share a sequence.

        Raises:
            ConfigError: says which number does not go into the ranks, and the nearest that do.
        """
        if kind == "single" and self.ranks > 1:
            raise ConfigError(
                f"parallel=single was asked for on {self.describes}. Choose parallel=ddp, fsdp2 or "
                "hsdp, or cluster.num_nodes=1 cluster.node_size=1."
            )
        for name, size in (("replicas", replicas), ("sequence_size", sequence_size)):
            if size < 1 or self.ranks % size:
                raise ConfigError(
                    f"parallel.{name}={size} was asked for, and {self.describes} has {self.ranks} "
                    f"ranks. Give one of {_divisors(self.ranks)}."
                )
        if (self.ranks // replicas) % sequence_size:
            raise ConfigError(
                f"parallel.replicas={replicas} and parallel.sequence_size={sequence_size} were "
                f"asked for on {self.ranks} ranks. The ranks of a sequence must lie in one replica "
                f"of {self.ranks // replicas} ranks."
            )


def _divisors(number: int) -> str:
    return ", ".join(str(size) for size in range(1, number + 1) if number % size == 0)


def _require_positive(where: str, **numbers: float) -> None:
    for name, number in numbers.items():
        if not number > 0:
            raise ConfigError(f"{where}: {name}={number} was asked for. Use more than 0.")
