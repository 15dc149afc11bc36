"""Time of one step by part, from what it does and how fast the devices do it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mllm_npu.plan.roofline import Rates
from mllm_npu.plan.traced_step import Exchange, Phase, TracedStep

PHASES: tuple[Phase, ...] = ("forward", "backward", "optimizer")
HOST_COPIES = 3
"""Host memory holds a parameter and its two moments; one of the three is copied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """What one part of the model does in one phase.

    Args:
        phase: of the step.
        part: of the model.
        busy: seconds the device computes or moves bytes.
        exchange: seconds of its collectives.
        exposed: of those, seconds the device waits for them.
    """

    phase: Phase
    part: str
    busy: float
    exchange: float
    exposed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """Time of a step.

    Args:
        seconds: of the whole step.
        parts: seconds by what they are spent on; their sum is ``seconds``. ``compute`` is bound by
            FLOPs, ``memory`` by bandwidth, ``launch`` the start of kernels, ``host`` waiting for
            the host to issue them, ``exchange`` waiting for collectives, ``optimizer`` the update,
            ``offload`` copies to and from the host, ``data`` waiting for the loader.
        hidden_exchange: seconds of collectives that computation hides.
        segments: by phase and part of the model, in order.
        tokens_per_second: of all ranks.
        tokens_per_second_rank: of one rank.
        mfu: FLOPs the result needs, as a share of the peak.
    """

    seconds: float
    parts: Mapping[str, float]
    hidden_exchange: float
    segments: Sequence[Segment]
    tokens_per_second: float
    tokens_per_second_rank: float
    mfu: float

    @property
    def limiting(self) -> str:
        """The part that takes most of the step."""
        return max(self.parts, key=lambda name: self.parts[name])


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a step depends on beside its device.

    Args:
        peak_flops: of one device, for the MFU.
        host_link: between device and host, bytes per second.
        host_memory: bytes per second of the host's memory that one rank has.
        tile_rate: tiles per second that all workers of one rank prepare.
        loads_ahead: whether workers prepare batches while the step runs.
    """

    peak_flops: float
    host_link: float
    host_memory: float
    tile_rate: float
    loads_ahead: bool


def time_step(traced: TracedStep, rates: Rates, around: Surroundings) -> StepTime:
    """Add a step up.

    An all-gather runs beside the computation of the block before it, a reduce-scatter beside that
    of the block behind it; what stands out is the first (or last) one of each pass and what is
    longer than the computation. Exchanges inside attention and in the update hide behind nothing.

    Args:
        traced: what the step does.
        rates: how fast.
        around: what else it depends on.
    """
    segments = _segments(traced, rates)
    parts = _computing(traced, rates)
    parts["exchange"] = sum(segment.exposed for segment in segments)
    parts["host"] = _host_seconds(traced, rates, segments)
    if traced.host_bytes:
        parts |= _offloaded(traced, around)
    running = sum(parts.values())
    preparing = traced.tiles / around.tile_rate
    parts["data"] = max(0.0, preparing - running) if around.loads_ahead else preparing
    seconds = sum(parts.values())
    return StepTime(
        seconds=seconds,
        parts=parts,
        hidden_exchange=sum(segment.exchange - segment.exposed for segment in segments),
        segments=segments,
        tokens_per_second=traced.tokens * traced.data_ranks / seconds,
        tokens_per_second_rank=traced.tokens * traced.data_ranks / traced.ranks / seconds,
        mfu=traced.model_flops / (seconds * around.peak_flops),
    )


def main_dtype(traced: TracedStep) -> str:
    """The dtype most FLOPs are done in."""
    flops: dict[str, float] = defaultdict(float)
    for operation in traced.operations:
        flops[operation.dtype] += operation.flops * operation.calls
    return max(flops, key=lambda name: flops[name], default="float32")


def _computing(traced: TracedStep, rates: Rates) -> dict[str, float]:
    parts = dict.fromkeys(("compute", "memory", "launch", "host", "exchange", "optimizer"), 0.0)
    for operation in traced.operations:
        cost = rates.operation(operation)
        times = operation.calls * rates.slowdown
        if operation.phase == "optimizer":
            parts["optimizer"] += times * cost.seconds
            continue
        parts["compute"] += times * cost.compute
        parts["memory"] += times * cost.memory
        parts["launch"] += times * cost.launch
    return parts


def _segments(traced: TracedStep, rates: Rates) -> list[Segment]:
    busy: dict[tuple[Phase, str], float] = {}
    for operation in traced.operations:
        key = (operation.phase, operation.part)
        cost = rates.operation(operation).seconds * operation.calls * rates.slowdown
        busy[key] = busy.get(key, 0.0) + cost
    exchanges: dict[tuple[Phase, str], list[Exchange]] = {}
    for exchange in traced.exchanges:
        exchanges.setdefault((exchange.phase, exchange.part), []).append(exchange)
    keys = sorted(dict.fromkeys((*busy, *exchanges)), key=lambda key: PHASES.index(key[0]))
    segments = []
    for phase, part in keys:
        made = exchanges.get((phase, part), [])
        seconds = sum(rates.exchange(exchange) * exchange.calls for exchange in made)
        computing = busy.get((phase, part), 0.0)
        hides = rates.overlaps and phase != "optimizer"
        exposed = _exposed(made, rates, computing, traced.micro_batches) if hides else seconds
        segments.append(
            Segment(phase=phase, part=part, busy=computing, exchange=seconds, exposed=exposed)
        )
    return segments


def _exposed(
    exchanges: Sequence[Exchange], rates: Rates, computing: float, micro_batches: int
) -> float:
    """Seconds of exchanges that stand out behind the computation of their part."""
    exposed, hideable = 0.0, 0.0
    for exchange in exchanges:
        once = rates.exchange(exchange)
        alone = exchange.axis == "sequence"
        bare = exchange.calls if alone else min(exchange.calls, micro_batches)
        exposed += bare * once
        hideable += (exchange.calls - bare) * once
    return exposed + max(0.0, hideable - computing)


def _host_seconds(traced: TracedStep, rates: Rates, segments: Sequence[Segment]) -> float:
    """How long the device waits because its operations are shorter than issuing them takes."""
    waited = 0.0
    for phase in PHASES:
        calls = sum(one.calls for one in traced.operations if one.phase == phase)
        working = sum(one.busy + one.exposed for one in segments if one.phase == phase)
        waited += max(0.0, calls * rates.host_seconds - working)
    return waited


def _offloaded(traced: TracedStep, around: Surroundings) -> dict[str, float]:
    """Parameters come from the host for both passes, gradients go there, and it does the update."""
    copied = traced.host_bytes / HOST_COPIES
    passes = 2 * traced.micro_batches
    moved = sum(
        operation.bytes * operation.calls
        for operation in traced.operations
        if operation.phase == "optimizer"
    )
    return {
        "offload": copied * (passes + traced.micro_batches) / around.host_link,
        "optimizer": moved / around.host_memory,
    }
