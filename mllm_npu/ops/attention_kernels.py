"""Name the operators of fused attention, for whoever decides what a backward pass keeps."""

from __future__ import annotations

import torch
from torch._ops import OpOverload

_NAMES = (
    "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_efficient_attention",
    "aten::_scaled_dot_product_cudnn_attention",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_flash_attention_forward",
    "torch_attn::_varlen_attn",
    "flash_attn::_flash_attn_varlen_forward",
    "npu::npu_fusion_attention",
    "mllm_npu::fused_attention",
)


def attention_kernels() -> frozenset[OpOverload]:
    """Forward operators of fused attention that this process knows now.

    A package registers its own when it is imported, so ask when a model is about to run.
    """
    found = set()
    for name in _NAMES:
        namespace, _, operator = name.partition("::")
        packet = getattr(getattr(torch.ops, namespace), operator, None)
        if packet is not None:
            found.add(packet.default)
    return frozenset(found)
