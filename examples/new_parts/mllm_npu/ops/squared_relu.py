"""Square what is above zero.

Source: So et al. 2021 (Primer).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mllm_npu.ops.ways import Op, Way


def squared_relu(x: Tensor) -> Tensor:
    """Square the positive values and drop the others, float [...] -> [...]."""
    return _SQUARED_RELU(x)


def squared_relu_reference(x: Tensor) -> Tensor:
    """Say what `squared_relu` gives."""
    return torch.where(x > 0, x * x, torch.zeros_like(x))


def _two_steps(x: Tensor) -> Tensor:
    return F.relu(x).square()


_SQUARED_RELU = Op(
    "squared_relu",
    reference=squared_relu_reference,
    ways=(Way(name="two steps", run=_two_steps),),
)
