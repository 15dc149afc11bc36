"""Ranks that share a pack: what each holds, and what attention and gradients come to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mllm_npu.distributed.mesh import Mesh
from mllm_npu.errors import ConfigError
from mllm_npu.ops.attention import packed_attention
from mllm_npu.ops.packing import pack_sequences
from mllm_npu.ops.sequence_exchange import SequenceExchange

CPU = torch.device("cpu")
WIDTH = 4
HEADS = ((4, 4), (8, 2), (8, 4), (12, 1), (8, 8))
"""Query heads and key heads of a model on four ranks."""
PACKS = ((5, 12), (3,), (1, 2, 9, 16), (4, 8, 21))
"""Ends of sequences; some packs do not split evenly, one has fewer tokens than ranks."""


def attend_together(folder: Path) -> dict[str, Any]:
    """Largest differences from what one process computes, over all heads and packs."""
    mesh = Mesh.start(CPU, sequence_size=4, timeout_seconds=30)
    exchange = SequenceExchange(group=mesh.sequence_group(CPU))
    differences = {
        f"{heads} {ends}": _compare(exchange, heads, ends) for heads in HEADS for ends in PACKS
    }
    errors = {}
    for heads, shared in ((2, False), (6, False), (3, True), (6, True)):
        try:
            exchange.to_heads(torch.zeros(2, heads, WIDTH), 5, shared=shared)
        except ConfigError as error:
            errors[heads, shared] = str(error)
    whole = torch.arange(14.0).view(7, 2)
    own = exchange.split(whole)
    return {
        "place": (exchange.rank, exchange.size),
        "differences": differences,
        "errors": errors,
        "own": own.tolist(),
        "numbers": exchange.split(torch.arange(1, 6)).tolist(),
        "joined": exchange.join(own, 7).tolist(),
    }


def _compare(exchange: SequenceExchange, heads: tuple[int, int], ends: tuple[int, ...]) -> float:
    """The loss is computed in full on each rank, so gradients come out as often as there are."""
    generator = torch.Generator().manual_seed(3)
    whole = [
        torch.randn(ends[-1], number, WIDTH, generator=generator).requires_grad_()
        for number in (heads[0], heads[1], heads[1])
    ]
    weights = torch.randn(ends[-1], heads[0] * WIDTH, generator=generator)
    packing = pack_sequences(ends, CPU)
    expected = packed_attention(*whole, packing, scale=0.5)
    (expected.flatten(1) * weights).sum().backward()

    own = [exchange.split(part.detach()).requires_grad_() for part in whole]
    q, k, v = (exchange.to_heads(own[n], ends[-1], shared=n > 0) for n in range(3))
    attended = exchange.to_tokens(packed_attention(q, k, v, packing, scale=0.5))
    joined = exchange.join(attended.flatten(1), ends[-1])
    (joined * weights).sum().backward()
    pairs = [(joined, expected.flatten(1))]
    pairs += [
        (part.grad, exchange.split(one.grad) * exchange.size)  # type: ignore[arg-type, operator]
        for part, one in zip(own, whole, strict=True)
    ]
    return max(_difference(found, wanted) for found, wanted in pairs)


@torch.no_grad()
def _difference(found: Tensor | None, wanted: Tensor) -> float:
    assert found is not None
    assert found.shape == wanted.shape
    largest = (found - wanted).abs().max()
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return float(largest)
