"""A training step of the whole tiny model goes through the wheel's own argument checks.

Kernels compute nothing here, so no value is looked at: what counts is that every operation is taken
with these shapes, types and arguments, forward and backward, and that none falls back to the host.
"""

from __future__ import annotations

import os
import sys

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mllm_npu.device.doctor.trial import Size, Trial
from mllm_npu.models.tiny import tiny_batch, tiny_seed
from mllm_npu.ops import attention_npu
from mllm_npu.ops.attention_options import BandOptions, PackOptions, RowOptions
from mllm_npu.ops.packing import Packing

DEVICE = torch.device("npu")


class Seen(TorchDispatchMode):
    """Notes the name of every operator."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.name())
        return func(*args, **(kwargs or {}))


def train_a_step() -> set[str]:
    """Forward, backward and update of the tiny model in bfloat16; the operators it took."""
    torch.manual_seed(0)
    model = tiny_seed().to(DEVICE)
    batch = tiny_batch().to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
    with Seen() as seen:
        with torch.autocast("npu", torch.bfloat16):
            losses = model(batch)
        losses.total(dict.fromkeys(losses.terms, 10.0)).backward()
        optimizer.step()
    torch.accelerator.synchronize()
    return seen.names


def attend_in_every_way() -> None:
    """The ways of attention that the tiny model does not take."""
    q, k, v = (
        torch.randn(16, heads, 64, dtype=torch.bfloat16, device=DEVICE, requires_grad=True)
        for heads in (4, 2, 2)
    )
    packing = Packing(sequence_ends=(5, 12, 16), device=DEVICE)
    outs = [
        attention_npu.attend_pack(q, k, v, packing, PackOptions(scale=0.1)),
        attention_npu.attend_pack(q, k, v, packing, PackOptions(scale=0.1, window=3)),
    ]
    outs += [
        attention_npu.attend_varlen(
            q, k, v, packing.pairs, BandOptions(left=left, right=right, scale=0.1)
        )
        for left, right in ((None, None), (2, 1))
    ]
    rows = [part.transpose(0, 1)[None] for part in (q, k, v)]
    mask = torch.ones(16, 16, dtype=torch.bool, device=DEVICE)
    outs += [
        attention_npu.attend(*rows, RowOptions(mask=seen, causal=causal, scale=0.1))
        for seen, causal in ((None, True), (mask, False), (None, False))
    ]
    for out in outs:
        out.sum().backward()


assert os.environ["TORCH_NPU_FALLBACK_CPU_DISABLE"] == "1", "else a fallback would pass unseen"
names = train_a_step()
attend_in_every_way()
Trial(DEVICE, Size(width=64, blocks=1, heads=2, sequences=2, tokens=16, classes=24)).play_round()
fused = sorted(name for name in names if name.startswith("npu::"))
sys.stdout.write(f"{len(names)} operators, of them {', '.join(fused) or 'none'} fused\n")
