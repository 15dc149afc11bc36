"""Gate a layer: silu(gate) * up.

Source: Shazeer 2020.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mllm_npu.ops.npu_extension import NPU, fused_ops, takes_dtype
from mllm_npu.ops.ways import Op, Way


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Multiply by what the gate lets through.

    Args:
        gate: float [...].
        up: float [...], the same shape.

    Returns:
        silu(gate) * up, float [...].
    """
    return _SWIGLU(gate, up)


def swiglu_reference(gate: Tensor, up: Tensor) -> Tensor:
    """Say what `swiglu` gives."""
    return F.silu(gate) * up


def _suits_npu(gate: Tensor, up: Tensor) -> bool:
    same = gate.shape == up.shape and gate.dim() > 0 and gate.numel() > 0
    return same and takes_dtype(gate.dtype, up.dtype)


def _fused(gate: Tensor, up: Tensor) -> Tensor:
    return fused_ops().npu_swiglu(torch.cat((gate, up), -1), -1)


_SWIGLU = Op(
    "swiglu",
    reference=swiglu_reference,
    ways=(
        Way(name=NPU, device=NPU, run=_fused, suits=_suits_npu),
        Way(name="written out", run=swiglu_reference),
    ),
)
