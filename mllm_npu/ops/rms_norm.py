"""Divide by the root of the mean square and scale, rounded as Hugging Face's models round.

Shape letters: D width.

Source: Zhang and Sennrich 2019; the rounding is that of transformers' LlamaRMSNorm.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mllm_npu.ops import pretended_kernels
from mllm_npu.ops.autocast import without_autocast
from mllm_npu.ops.npu_extension import NPU, fused_ops, takes_dtype
from mllm_npu.ops.ways import Op, Way, pretends


def rms_norm(x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """Normalize the last dimension.

    Args:
        x: float [..., D].
        weight_D: factor of each place.
        eps: added to the mean square.

    Returns:
        float [..., D] in the wider dtype of both.
    """
    return _RMS_NORM(x, weight_D, eps)


def rms_norm_reference(x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """Say what `rms_norm` gives: in float32, rounded to the dtype of ``x``, then scaled."""
    wide = x.to(torch.float32)
    normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return weight_D * normed.to(x.dtype)


def _suits_kernels(x: Tensor, weight_D: Tensor, eps: float) -> bool:
    return (
        x.numel() > 0
        and weight_D.shape == x.shape[-1:]
        and takes_dtype(x.dtype)
        and takes_dtype(weight_D.dtype)
    )


def _fused(x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """In the wider dtype of both: the kernel would give a narrow result for a wide weight."""
    dtype = torch.promote_types(x.dtype, weight_D.dtype)
    return fused_ops().npu_rms_norm(x.to(dtype), weight_D.to(dtype), eps)[0]


def _by_torch(x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """In the wider dtype of both: of two dtypes torch has no kernel."""
    dtype = torch.promote_types(x.dtype, weight_D.dtype)
    if pretends("cuda"):  # torch writes it out on the device the tensors are on
        return pretended_kernels.npu_rms_norm(x.to(dtype), weight_D.to(dtype), eps)[0]
    with without_autocast(x):
        return F.rms_norm(x.to(dtype), weight_D.shape, weight_D.to(dtype), eps)


_RMS_NORM = Op(
    "rms_norm",
    reference=rms_norm_reference,
    ways=(
        Way(name=NPU, device=NPU, run=_fused, suits=_suits_kernels),
        Way(name="torch", device="cuda", run=_by_torch, suits=_suits_kernels),
        Way(name="written out", run=rms_norm_reference),
    ),
)
