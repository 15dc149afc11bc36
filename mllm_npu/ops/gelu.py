"""The exact Gaussian error linear unit; an NPU gives the tanh form unless it is asked by name.

torch's own function takes no notice of ``approximate`` there, and the two differ by up to 5e-4.

Source: Hendrycks and Gimpel 2016; torch_npu's documentation of npu_gelu.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mllm_npu.ops.npu_extension import NPU, fused_ops, takes_dtype
from mllm_npu.ops.ways import Op, Way


def gelu(x: Tensor) -> Tensor:
    """Weigh each value by the chance that a normal number is smaller, float [...] -> [...]."""
    return _GELU(x)


class GELU(nn.Module):
    """The same as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """Float [...] -> float [...]."""
        return gelu(x)


def gelu_reference(x: Tensor) -> Tensor:
    """Say what `gelu` gives."""
    return x * (0.5 * (1 + torch.erf(x / math.sqrt(2))))


def _suits_npu(x: Tensor) -> bool:
    return x.numel() > 0 and takes_dtype(x.dtype)


def _fused(x: Tensor) -> Tensor:
    return fused_ops().npu_gelu(x, approximate="none")


_GELU = Op(
    "gelu",
    reference=gelu_reference,
    ways=(
        Way(name=NPU, device=NPU, run=_fused, suits=_suits_npu),
        Way(name="torch", device="cpu", run=F.gelu),
        Way(name="torch", device="cuda", run=F.gelu),
        Way(name="written out", run=gelu_reference),
    ),
)
