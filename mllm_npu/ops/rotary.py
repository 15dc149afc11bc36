"""Turn pairs of places by an angle that grows with the position, as Hugging Face's models do.

The pairs are a place of the first half and the same place of the second half.

Shape letters: B rows, H heads, L tokens, E head width, R width that turns.

Source: Su et al. 2021; the layout is that of transformers' apply_rotary_pos_emb.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mllm_npu.ops.npu_extension import NPU, fused_ops, takes_dtype
from mllm_npu.ops.ways import Op, Way

_WIDEST = 896


def rotate(x_BHLE: Tensor, cos_BLR: Tensor, sin_BLR: Tensor, *, heads_dim: int = 1) -> Tensor:
    """Turn queries or keys by their positions.

    Args:
        x_BHLE: queries or keys; [B, L, H, E] with ``heads_dim=2``.
        cos_BLR: cosine of each angle, both halves; B may be 1. Where R is less than E only the
            first R places turn.
        sin_BLR: sine of each angle.
        heads_dim: where the heads are, 1 or 2.

    Returns:
        float of the shape of ``x_BHLE``, in the wider dtype of it and the cosine.
    """
    return _ROTATE(x_BHLE, cos_BLR, sin_BLR, heads_dim=heads_dim)


def apply_rotary_pos_emb(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1
) -> tuple[Tensor, Tensor]:
    """Turn queries and keys; name, arguments and results are transformers' own.

    Args:
        q: [B, H, L, E], or [B, L, H, E] with ``unsqueeze_dim=2``.
        k: the same with its own number of heads.
        cos: [B, L, R].
        sin: [B, L, R].
        unsqueeze_dim: where the heads are.
    """
    rotated = (rotate(part, cos, sin, heads_dim=unsqueeze_dim) for part in (q, k))
    return next(rotated), next(rotated)


def rotate_reference(
    x_BHLE: Tensor, cos_BLR: Tensor, sin_BLR: Tensor, *, heads_dim: int = 1
) -> Tensor:
    """Say what `rotate` gives."""
    cos, sin = cos_BLR.unsqueeze(heads_dim), sin_BLR.unsqueeze(heads_dim)
    width = cos.shape[-1]
    turning = x_BHLE[..., :width]
    first, second = turning[..., : width // 2], turning[..., width // 2 :]
    turned = turning * cos + torch.cat((-second, first), -1) * sin
    return turned if width == x_BHLE.shape[-1] else torch.cat((turned, x_BHLE[..., width:]), -1)


def _suits_npu(x_BHLE: Tensor, cos_BLR: Tensor, sin_BLR: Tensor, *, heads_dim: int = 1) -> bool:
    width = x_BHLE.shape[-1]
    return (
        x_BHLE.dim() == 4
        and cos_BLR.dim() == 3
        and heads_dim in (1, 2)
        and x_BHLE.numel() > 0
        and width == cos_BLR.shape[-1] <= _WIDEST
        and width % 2 == 0
        and cos_BLR.shape == sin_BLR.shape
        and cos_BLR.shape[0] in (1, x_BHLE.shape[0])
        and cos_BLR.shape[1] == x_BHLE.shape[3 - heads_dim]
        and not (cos_BLR.requires_grad or sin_BLR.requires_grad)
        and takes_dtype(x_BHLE.dtype)
        and takes_dtype(cos_BLR.dtype, sin_BLR.dtype)
    )


def _fused(x_BHLE: Tensor, cos_BLR: Tensor, sin_BLR: Tensor, *, heads_dim: int = 1) -> Tensor:
    dtype = torch.promote_types(x_BHLE.dtype, cos_BLR.dtype)
    cos, sin = (part.unsqueeze(heads_dim).to(dtype) for part in (cos_BLR, sin_BLR))
    return fused_ops().npu_rotary_mul(x_BHLE.to(dtype), cos, sin)


_ROTATE = Op(
    "rotate",
    reference=rotate_reference,
    ways=(
        Way(name=NPU, device=NPU, run=_fused, suits=_suits_npu),
        Way(name="written out", run=rotate_reference),
    ),
)
