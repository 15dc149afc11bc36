"""How many FLOPs a kernel computes, from the shapes it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils.flop_counter import (
    flop_registry,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from mllm_npu.ops.pretended_kernels import attention_flops

Formula = Callable[..., float]
_ATEN, _OWN = torch.ops.aten, torch.ops.mllm_npu
BACKWARD_PRODUCTS, FORWARD_PRODUCTS = 5, 2
"""Products of matrices that fused attention computes; one of the first is its forward pass again.
"""


def kernel_flops(kernel: OpOverload, args: Sequence[Any], kwargs: Any, out: Any) -> float:
    """FLOPs of one call, a multiplication and an addition are two; 0 for what has no products.

    Args:
        kernel: what was called.
        args: with what.
        kwargs: and with what by name.
        out: what it gave.
    """
    packet = kernel._overloadpacket
    own = _FORMULAS.get(packet)
    if own is not None:
        return own(*args, **kwargs)
    known = flop_registry.get(packet)
    return 0.0 if known is None else float(known(*args, **kwargs, out_val=out))


def needed_flops(kernel: OpOverload, flops: float) -> float:
    """Of these FLOPs, what the mathematics needs: without what fused attention computes again."""
    again = kernel._overloadpacket in _AGAIN
    return flops * (BACKWARD_PRODUCTS - 1) / BACKWARD_PRODUCTS if again else flops


def _added_product(into: Tensor, left: Tensor, right: Tensor, **_: Any) -> float:
    return 2.0 * left.numel() * right.shape[-1]


def _convolution_backward(
    grad: Tensor, inputs: Tensor, weight: Tensor, bias: Any, *settings: Any, **_: Any
) -> float:
    """As many as forward for each gradient; torch's own formula counts groups as if they mixed."""
    transposed, mask = settings[3], settings[6]
    places = inputs.shape[2:] if transposed else grad.shape[2:]
    return 2.0 * grad.shape[0] * prod(places) * weight.numel() * sum(mask[:2])


def _attention(q: Tensor, k: Tensor, v: Tensor, pairs: float, repeats: int) -> float:
    return attention_flops(q.shape, v.shape, pairs)


def _attention_back(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *kept: Any) -> float:
    return attention_flops(q.shape, v.shape, kept[-1]) * BACKWARD_PRODUCTS / FORWARD_PRODUCTS


def _attention_cpu(q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> float:
    return float(sdpa_flop_count(q.shape, k.shape, v.shape))  # type: ignore[no-untyped-call]


def _attention_cpu_back(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> float:
    flops = sdpa_backward_flop_count(grad.shape, q.shape, k.shape, v.shape)  # type: ignore[no-untyped-call]
    return float(flops)


_FORMULAS: dict[Any, Formula] = {
    _ATEN.addmm_: _added_product,
    _ATEN.baddbmm_: _added_product,
    _ATEN.convolution_backward: _convolution_backward,
    _ATEN._scaled_dot_product_flash_attention_for_cpu: _attention_cpu,
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward: _attention_cpu_back,
    _OWN.fused_attention: _attention,
    _OWN.fused_attention_backward: _attention_back,
}
_AGAIN = frozenset(
    {
        _ATEN._scaled_dot_product_flash_attention_for_cpu_backward,
        _ATEN._flash_attention_backward,
        _OWN.fused_attention_backward,
    }
)
