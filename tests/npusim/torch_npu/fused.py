"""The fused operators `npu::npu_*`, as the functions of the package and under torch.ops.npu.

They are computed in float32 on host views and rounded once. Autocast does not touch them.
"""

import functools

import torch

from torch_npu import small_operators
from torch_npu.definitions import LIBRARY, derive, register, run_on_device
from torch_npu.fused_attention import npu_fusion_attention

npu_fusion_attention_grad = torch.ops.npu.npu_fusion_attention_grad
npu_gelu = torch.ops.npu.npu_gelu
npu_gelu_backward = torch.ops.npu.npu_gelu_backward
npu_grouped_matmul = torch.ops.npu.npu_grouped_matmul
npu_rms_norm = torch.ops.npu.npu_rms_norm
npu_rms_norm_backward = torch.ops.npu.npu_rms_norm_backward
npu_rotary_mul = torch.ops.npu.npu_rotary_mul
npu_rotary_mul_backward = torch.ops.npu.npu_rotary_mul_backward
npu_swiglu = torch.ops.npu.npu_swiglu
npu_swiglu_backward = torch.ops.npu.npu_swiglu_backward

__all__ = [
    "npu_fusion_attention",
    "npu_fusion_attention_grad",
    "npu_gelu",
    "npu_gelu_backward",
    "npu_grouped_matmul",
    "npu_rms_norm",
    "npu_rms_norm_backward",
    "npu_rotary_mul",
    "npu_rotary_mul_backward",
    "npu_swiglu",
    "npu_swiglu_backward",
]


def _save_rms_norm(ctx, inputs, output):
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*inputs[:2], output[1])


def _derive_rms_norm(ctx, grad, *_):
    return npu_rms_norm_backward(grad, *ctx.saved_tensors)


def _save_rotary(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:3])
    ctx.mode = inputs[3]


def _derive_rotary(ctx, grad):
    return npu_rotary_mul_backward(grad, *ctx.saved_tensors, ctx.mode)


def _rotary_backward(grad, tensor, cos, sin, rotary_mode="half"):
    """The kernel; it looks at the tensors themselves for what is wanted."""
    wanted = functools.partial(
        small_operators.rotary_backward, with_angles=cos.requires_grad or sin.requires_grad
    )
    args = (grad, tensor, cos, sin, rotary_mode)
    return run_on_device("npu_rotary_mul_backward", wanted, args, {})


def _save_swiglu(ctx, inputs, output):
    ctx.save_for_backward(inputs[0])
    ctx.dim = inputs[1]


def _derive_swiglu(ctx, grad):
    return (npu_swiglu_backward(grad, *ctx.saved_tensors, ctx.dim),)


def _save_gelu(ctx, inputs, keyword_only_inputs, output):
    ctx.save_for_backward(inputs[0])
    ctx.settings = keyword_only_inputs


def _derive_gelu(ctx, grad):
    return (npu_gelu_backward(grad, *ctx.saved_tensors, **ctx.settings),)


register("npu_rms_norm", small_operators.rms_norm)
register("npu_rms_norm_backward", small_operators.rms_norm_backward)
derive("npu_rms_norm", _save_rms_norm, _derive_rms_norm)

register("npu_rotary_mul", small_operators.rotary)
LIBRARY.impl("npu_rotary_mul_backward", _rotary_backward, "PrivateUse1")
LIBRARY.impl(
    "npu_rotary_mul_backward",
    functools.partial(small_operators.rotary_backward, with_angles=True),
    "Meta",
)
derive("npu_rotary_mul", _save_rotary, _derive_rotary)

register("npu_swiglu", small_operators.swiglu)
register("npu_swiglu_backward", small_operators.swiglu_backward)
derive("npu_swiglu", _save_swiglu, _derive_swiglu)

register("npu_gelu", small_operators.gelu)
register("npu_gelu_backward", small_operators.gelu_backward)
derive("npu_gelu", _save_gelu, _derive_gelu)

register("npu_grouped_matmul", small_operators.grouped_matmul)
register("npu_grouped_matmul.List", small_operators.grouped_matmul)
