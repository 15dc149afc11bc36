"""Follow torch's autocast in operations that autocast itself does not know."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype of autocast, where that is on for the tensor's device; else the tensor's own."""
    kind = tensor.device.type
    is_on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if is_on else tensor.dtype


def in_compute_dtype(tensor: Tensor) -> Tensor:
    """The same values in the dtype of autocast, where that is on for the tensor's device."""
    return tensor.to(compute_dtype(tensor))


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """Compute in the dtypes the tensors have; autocast would narrow what is wide on purpose."""
    kind = tensor.device.type
    if not torch.amp.is_autocast_available(kind):
        return nullcontext()
    return torch.autocast(kind, enabled=False)
