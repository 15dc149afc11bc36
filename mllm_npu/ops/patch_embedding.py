"""Embed the patches of pictures: a convolution whose steps are as wide as its kernel.

Shape letters: I pictures, C channels, H height, W width, V width of an embedding, P edge of a
patch, Y patches from top to bottom, X patches from left to right.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mllm_npu.ops.npu_extension import NPU
from mllm_npu.ops.ways import Op, Way


def patch_embedding(
    pixels_ICHW: Tensor, weight_VCPP: Tensor, bias_V: Tensor | None = None
) -> Tensor:
    """Embed each patch; what is left at the right and at the bottom is cut off.

    Args:
        pixels_ICHW: pictures.
        weight_VCPP: of the convolution; a patch may be higher than wide.
        bias_V: added to each embedding.

    Returns:
        float [I, V, Y, X].
    """
    return _PATCH_EMBEDDING(pixels_ICHW, weight_VCPP, bias_V)


def patch_embedding_reference(
    pixels_ICHW: Tensor, weight_VCPP: Tensor, bias_V: Tensor | None = None
) -> Tensor:
    """Say slowly what `patch_embedding` gives: patch by patch the product with each kernel."""
    height, width = weight_VCPP.shape[2:]
    num_rows, num_columns = pixels_ICHW.shape[2] // height, pixels_ICHW.shape[3] // width
    rows = []
    for top in range(0, num_rows * height, height):
        row = []
        for left in range(0, num_columns * width, width):
            patch_ICPP = pixels_ICHW[:, :, top : top + height, left : left + width]
            row.append((patch_ICPP[:, None] * weight_VCPP).sum((2, 3, 4)))
        rows.append(torch.stack(row, -1))
    embedded_IVYX = torch.stack(rows, -2)
    return embedded_IVYX if bias_V is None else embedded_IVYX + bias_V[:, None, None]


def embed_by_product(
    pixels_ICHW: Tensor, weight_VCPP: Tensor, bias_V: Tensor | None = None
) -> Tensor:
    """Lay the patches out as rows of one matrix product."""
    height, width = weight_VCPP.shape[2:]
    num_rows, num_columns = pixels_ICHW.shape[2] // height, pixels_ICHW.shape[3] // width
    whole = pixels_ICHW[:, :, : num_rows * height, : num_columns * width]
    patches = whole.reshape(*whole.shape[:2], num_rows, height, num_columns, width)
    rows = patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    embedded = F.linear(rows, weight_VCPP.flatten(1), bias_V)
    return embedded.transpose(1, 2).reshape(len(rows), -1, num_rows, num_columns)


def _convolve(pixels_ICHW: Tensor, weight_VCPP: Tensor, bias_V: Tensor | None = None) -> Tensor:
    height, width = weight_VCPP.shape[2:]
    return F.conv2d(pixels_ICHW, weight_VCPP, bias_V, stride=(height, width))


def _has_patches(pixels_ICHW: Tensor, weight_VCPP: Tensor, bias_V: Tensor | None = None) -> bool:
    if pixels_ICHW.dim() != 4:
        return False
    edges = zip(pixels_ICHW.shape[2:], weight_VCPP.shape[2:], strict=True)
    return pixels_ICHW.numel() > 0 and all(edge >= patch for edge, patch in edges)


_PATCH_EMBEDDING = Op(
    "patch_embedding",
    reference=patch_embedding_reference,
    ways=(
        Way(name=NPU, device=NPU, run=embed_by_product, suits=_has_patches),
        # torch lets convolutions of a CUDA device, unlike products, shorten float32 (TF32).
        Way(name="product", device="cuda", run=embed_by_product, suits=_has_patches),
        Way(name="convolution", run=_convolve),
    ),
)
