"""Reach the fused kernels of the NPU: the package that has them, and what they all ask for."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import torch
from torch import Tensor

from mllm_npu.device.transfer import to_device
from mllm_npu.ops import pretended_kernels
from mllm_npu.ops.ways import keep_while_pretending, pretends

NPU = "npu"
"""torch's type of the device."""
_EDGE = 2048
_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def fused_ops() -> Any:
    """The package with the kernels; whoever has a tensor on such a device has it installed."""
    if pretends(NPU):
        return pretended_kernels
    return importlib.import_module("torch_npu")


def takes_dtype(*dtypes: torch.dtype) -> bool:
    """Whether the fused kernels compute in this dtype, and in this one alone."""
    return dtypes[0] in _DTYPES and set(dtypes) == {dtypes[0]}


@functools.cache
def compressed_mask(device: torch.device) -> Tensor:
    """What a causal or banded attention kernel asks for instead of a mask of its scores' size.

    It lives as long as the process, one per device.

    Returns:
        bool [2048, 2048], True above the diagonal: what is not seen.
    """
    with torch.inference_mode(False):  # else no training step could keep it afterwards
        later = torch.ones(_EDGE, _EDGE, dtype=torch.bool, device="cpu").triu_(1)
        return to_device(later, device)


def causal_mask(device: torch.device) -> Tensor:
    """The same; where the device is only pretended, a fake one that ends with the pretence."""
    if not pretends(NPU):
        return compressed_mask(device)
    return keep_while_pretending(
        "mask", lambda: torch.empty(_EDGE, _EDGE, dtype=torch.bool, device=device)
    )
