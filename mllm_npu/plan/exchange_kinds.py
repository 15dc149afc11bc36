"""Read from a collective kernel what it exchanges, how much, and among which ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._ops import OpOverload
from torch.distributed.distributed_c10d import GroupName, _resolve_process_group

from mllm_npu.plan.traced_step import Axis, ExchangeKind

_NAMESPACES = ("c10d", "_c10d_functional", "_c10d_functional_autograd")
_KINDS: tuple[tuple[str, ExchangeKind], ...] = (
    ("allgather", "all_gather"),
    ("all_gather", "all_gather"),
    ("reduce_scatter", "reduce_scatter"),
    ("allreduce", "all_reduce"),
    ("all_reduce", "all_reduce"),
    ("alltoall", "all_to_all"),
    ("all_to_all", "all_to_all"),
    ("broadcast", "broadcast"),
)
_BY_LISTS = ("allgather_", "reduce_scatter_")
"""How the ranks of a sequence join their stretches; FSDP gathers and scatters single tensors."""


def is_collective(kernel: OpOverload) -> bool:
    """Whether ranks meet in this kernel."""
    return kernel.namespace in _NAMESPACES


def exchange_kind(kernel: OpOverload) -> ExchangeKind | None:
    """What it is called in a plan; None for a wait, a barrier and the like."""
    name = kernel._schema.name.partition("::")[2]
    return next((kind for part, kind in _KINDS if part in name), None)


def exchanged_bytes(args: Sequence[Any], out: Any) -> int:
    """The whole tensor: what a gathering ends with, what a scattering begins with."""
    return max(sum(tensor.nbytes for tensor in tensors_in(part)) for part in (*args, out))


def exchange_group(args: Sequence[Any]) -> dist.ProcessGroup | None:
    """The ranks that meet; None where the kernel names none."""
    for part in args:
        if isinstance(part, torch.ScriptObject) and "ProcessGroup" in str(part._type()):
            return dist.ProcessGroup.unbox(part)
        if isinstance(part, str) and part not in ("sum", "avg", "max", "min"):
            return _resolve_process_group(GroupName(part))
    return None


def exchange_axis(kernel: OpOverload, kind: ExchangeKind, ranks: Sequence[int], world: int) -> Axis:
    """Among which ranks.

    Args:
        kernel: of the exchange.
        kind: of it.
        ranks: that meet.
        world: number of all ranks.
    """
    if kind == "all_to_all" or kernel._schema.name.partition("::")[2] in _BY_LISTS:
        return "sequence"
    if len(ranks) == world and kind in ("all_reduce", "broadcast"):
        return "world"
    is_row = len(ranks) < 2 or ranks[1] - ranks[0] == 1
    return "shard" if is_row else "replicate"


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Tensors of a kernel's argument or result, however deep in lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors_in(part)
