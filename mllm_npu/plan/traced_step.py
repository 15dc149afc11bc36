"""What one training step of one rank does and holds, as a dry run has seen it.

All numbers are of one rank and one optimizer step (all its micro-batches).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Phase = Literal["forward", "backward", "optimizer"]
Axis = Literal["shard", "replicate", "sequence", "world"]
ExchangeKind = Literal["all_gather", "reduce_scatter", "all_reduce", "all_to_all", "broadcast"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """Calls of one kernel with one set of shapes in one part of the model.

    Args:
        name: of the kernel, as torch names it ("aten.mm").
        part: of the model by its place ("language_model", "vision_encoder", ...; "optimizer").
        phase: of the step; recomputed work belongs to the backward pass.
        shapes: of its tensors, inputs then outputs.
        dtype: of its output, as "bfloat16".
        flops: of one call, a multiplication and an addition are two; 0 where it is bound by memory.
        bytes: that one call reads and writes.
        calls: how often.
    """

    name: str
    part: str
    phase: Phase
    shapes: tuple[tuple[int, ...], ...]
    dtype: str
    flops: float
    bytes: int
    calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """Collectives of one size.

    Args:
        kind: of collective.
        axis: among which ranks.
        ranks: how many of them.
        part: of the model whose values travel.
        phase: of the step.
        bytes: the whole tensor: what an all-gather ends with, what a reduce-scatter begins with.
        calls: how often.
    """

    kind: ExchangeKind
    axis: Axis
    ranks: int
    part: str
    phase: Phase
    bytes: int
    calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes on the device of one rank.

    Args:
        steady: between two steps, gradients already dropped.
        peak: the most within a step.
        at_peak: what lies there then, by kind: parameters, gradients, optimizer, activations,
            unsharded, exchange (buffers of collectives), temporary, inputs.
        parameters_by_part: what each part of the model holds of its own parameters.
        margin: of ``peak``, that the allocator of a device loses to pieces it cannot use.
    """

    steady: int
    peak: int
    at_peak: Mapping[str, int]
    parameters_by_part: Mapping[str, int]
    margin: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedStep:
    """What a step of one rank does and holds.

    Args:
        operations: all kernels.
        exchanges: all collectives.
        memory: on the device.
        host_bytes: optimizer and parameters kept in host memory (offload).
        tokens: of one rank, all micro-batches.
        tiles: of one rank, all micro-batches.
        micro_batches: of one rank.
        ranks: of the run.
        data_ranks: ranks that see data of their own.
        num_parameters: of the whole model.
        num_trained: of those, the trained ones.
        model_flops: needed by the step's result, without what is recomputed.
        checkpoint_bytes: that one checkpoint writes, over all ranks.
    """

    operations: tuple[Operation, ...]
    exchanges: tuple[Exchange, ...]
    memory: Memory
    host_bytes: int
    tokens: int
    tiles: int
    micro_batches: int
    ranks: int
    data_ranks: int
    num_parameters: int
    num_trained: int
    model_flops: float
    checkpoint_bytes: int
