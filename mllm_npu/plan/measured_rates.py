"""Rates of the device at hand: every operation of a step is made here for a moment."""

from __future__ import annotations

from collections.abc import Callable

import torch

from mllm_npu.device.process import usable_cores
from mllm_npu.plan.calibration import Calibration
from mllm_npu.plan.cluster import Cluster
from mllm_npu.plan.collectives import exchange_seconds
from mllm_npu.plan.exchange_trial import seconds_of
from mllm_npu.plan.kernel_times import kind_of, make_kinds
from mllm_npu.plan.neighbours import neighbours
from mllm_npu.plan.roofline import Cost
from mllm_npu.plan.steady_clock import SteadyClock
from mllm_npu.plan.traced_step import Exchange, Operation, TracedStep

Progress = Callable[[int, int], object]

LONG = 0.5
"""Seconds from which on an operation is reckoned by the rate of its class instead of made."""
_UPDATE, _LISTS = "adam", 5
"""The operation of an update, and its tensors for each parameter."""
_KINDS = {"all_to_all": "all_gather", "broadcast": "all_gather"}
"""What is not measured goes by what moves as much."""


class MeasuredRates:
    """Rates measured on this machine.

    On processors all is in processor seconds of a rank, measured beside neighbours that are as busy
    as the other ranks would be; ranks that share cores take turns.

    Args:
        traced: the step; each kind of its operations is made a few times.
        calibration: of the device.
        device: of this machine.
        cluster: what the device stands for.
        stride: ranks of a replica.
        progress: is called with the operations made and all of them.
    """

    def __init__(
        self,
        *,
        traced: TracedStep,
        calibration: Calibration,
        device: torch.device,
        cluster: Cluster,
        stride: int,
        progress: Progress = lambda done, total: None,
    ) -> None:
        self.calibration = calibration
        self.cluster = cluster
        self.stride = stride
        is_processor = device.type == "cpu"
        self.overlaps = not is_processor
        surplus = calibration.surplus
        self.host_seconds = 0.0 if is_processor else surplus.each["forward"]
        working = cluster.ranks * calibration.threads
        self.slowdown = max(1.0, working / usable_cores()) if is_processor else 1.0
        self._each = surplus.each if is_processor else dict.fromkeys(surplus.each, 0.0)
        self._byte = surplus.byte if is_processor else dict.fromkeys(surplus.byte, 0.0)
        is_sharded = any(exchange.axis == "shard" for exchange in traced.exchanges)
        self._update = calibration.sharding.update if is_sharded else 0.0
        short = [one for one in traced.operations if self._by_class(one) < LONG]
        with neighbours(cluster.ranks if is_processor else 1):
            clock = SteadyClock(device, usual=calibration.usual)
            self._seconds = make_kinds(short, clock, progress=progress)

    @property
    def made(self) -> int:
        """Kinds of operations that were made."""
        return len(self._seconds)

    def operation(self, operation: Operation) -> Cost:
        """Of one call."""
        alone = self._seconds.get(kind_of(operation), self._by_class(operation))
        alone += operation.bytes * self._byte[operation.phase]
        launch = self._each[operation.phase]
        if _UPDATE in operation.name:
            launch += self._update * len(operation.shapes) / _LISTS
        if operation.flops:
            return Cost(compute=alone, launch=launch)
        return Cost(memory=alone, launch=launch)

    def exchange(self, exchange: Exchange) -> float:
        """Seconds of one call."""
        kind = _KINDS.get(exchange.kind, exchange.kind)
        times, sharding = self.calibration.exchanges, self.calibration.sharding
        if kind not in times:
            return exchange_seconds(exchange, self.cluster, stride=self.stride)
        seconds = seconds_of(times[kind], exchange.bytes)
        if exchange.axis in ("shard", "replicate"):
            seconds += sharding.each + exchange.bytes * sharding.byte
        # Processors do the exchanges, too.
        return self.slowdown * seconds

    def _by_class(self, operation: Operation) -> float:
        """Seconds by the rates of large operations."""
        found = self.calibration
        seconds = max(found.launch, operation.bytes / found.bandwidth)
        if not operation.flops:
            return seconds
        rate = found.gemm.get(operation.dtype) or max(found.gemm.values())
        return max(seconds, operation.flops / rate)
