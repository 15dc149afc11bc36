"""Norm, rotary embedding, gates and grouped products of matrices, in float32 on the host."""

import torch
import torch.nn.functional as F

from torch_npu.argument_checks import (
    check,
    check_gelu,
    check_rms_norm,
    check_rotary,
    check_swiglu,
)


def rms_norm(tensor, gamma, epsilon=1e-6):
    """Normalise the trailing dimensions that gamma has; the result and the factor in float32."""
    check_rms_norm(tensor, gamma)
    values = tensor.float()
    rstd = torch.rsqrt(values.square().mean(_axes(tensor, gamma), keepdim=True) + epsilon)
    return values.mul(rstd).mul_(gamma.float()).to(tensor.dtype), rstd


def rms_norm_backward(grad, tensor, gamma, rstd):
    """Gradients of the tensor and of gamma."""
    normed = tensor.float() * rstd
    grads = grad.float()
    scaled = grads * gamma.float()
    shared = (scaled * normed).mean(_axes(tensor, gamma), keepdim=True)
    leading = tuple(range(tensor.dim() - gamma.dim()))
    gamma_grad = (grads * normed).sum(leading) if leading else grads * normed
    return ((scaled - normed * shared) * rstd).to(tensor.dtype), gamma_grad.to(gamma.dtype)


def _axes(tensor, gamma):
    return tuple(range(tensor.dim() - gamma.dim(), tensor.dim()))


def rotary(tensor, cos, sin, rotary_mode="half", rotate=None):
    """Rotate pairs of each head: numbers half a head apart, or neighbours."""
    check_rotary(tensor, cos, sin, rotary_mode, rotate)
    values = tensor.float()
    turned = _turned(values, rotary_mode)
    return values.mul(cos.float()).add_(turned.mul_(sin.float())).to(tensor.dtype)


def rotary_backward(grad, tensor, cos, sin, rotary_mode="half", *, with_angles):
    """Gradients of the tensor and, where they are wanted, of cosine and sine; else zeros."""
    grads = grad.float()
    # Turning back is turning three times.
    turned_back = _turned(grads * sin.float(), rotary_mode).neg_()
    tensor_grad = grads.mul(cos.float()).add_(turned_back).to(tensor.dtype)
    if not with_angles:
        return tensor_grad, torch.zeros_like(cos), torch.zeros_like(sin)
    values = tensor.float()
    cos_grad = (grads * values).sum_to_size(cos.shape)
    sin_grad = (grads * _turned(values, rotary_mode)).sum_to_size(sin.shape)
    return tensor_grad, cos_grad.to(cos.dtype), sin_grad.to(sin.dtype)


def _turned(values, mode):
    """Each pair (a, b) as (-b, a)."""
    if mode == "half":
        first, second = values.chunk(2, -1)
        return torch.cat((-second, first), -1)
    pairs = values.unflatten(-1, (-1, 2))
    return torch.stack((-pairs[..., 1], pairs[..., 0]), -1).flatten(-2)


def swiglu(tensor, dim=-1):
    """silu of the first half times the second half."""
    check_swiglu(tensor, dim)
    gate, value = tensor.float().chunk(2, dim)
    return F.silu(gate).mul_(value).to(tensor.dtype)


def swiglu_backward(grad, tensor, dim=-1):
    """Gradient of the tensor."""
    gate, value = tensor.float().chunk(2, dim)
    grads = grad.float()
    share = torch.sigmoid(gate)
    active = gate * share
    gate_grad = grads * value * (share + active * (1 - share))
    return torch.cat((gate_grad, grads * active), dim).to(tensor.dtype)


def gelu(tensor, *, approximate="none"):
    """The Gaussian error linear unit, exact or by tanh."""
    check_gelu(approximate)
    return F.gelu(tensor.float(), approximate=approximate).to(tensor.dtype)


def gelu_backward(grad, tensor, *, approximate="none"):
    """Gradient of the tensor."""
    check_gelu(approximate)
    grads = torch.ops.aten.gelu_backward(grad.float(), tensor.float(), approximate=approximate)
    return grads.to(tensor.dtype)


def grouped_matmul(
    x,
    weight,
    *,
    group_list=None,
    split_item=0,
    group_type=None,
    group_list_type=0,
    **unsimulated,
):
    """One product per group of rows, of columns, or per pair of matrices; a list of results.

    Raises:
        NotImplementedError: the device can do it, the simulation cannot.
    """
    for name, value in unsimulated.items():
        if value not in (None, 0):
            raise NotImplementedError(f"npu_grouped_matmul: {name} is not simulated")
    kind = -1 if group_type is None else group_type
    if kind == -1:
        check(len(x) == len(weight), f"{len(x)} x for {len(weight)} weights")
        return [_product(part, matrix) for part, matrix in zip(x, weight, strict=True)]
    check(group_list is not None, "npu_grouped_matmul: group_list is needed")
    if kind not in (0, 2) or split_item not in (2, 3) or len(x) != 1 or len(weight) != 1:
        raise NotImplementedError(
            "npu_grouped_matmul: simulated are one x, one weight, group_type 0 or 2, split_item 2 "
            "or 3, or group_type -1"
        )
    bounds = _bounds(group_list, group_list_type)
    if kind == 0:
        check(len(bounds) == weight[0].shape[0], "group_list must have one group per weight")
        return [
            torch.cat([_product(x[0][a:b], w) for (a, b), w in zip(bounds, weight[0], strict=True)])
        ]
    return [torch.stack([_product(x[0][:, a:b], weight[0][a:b]) for a, b in bounds])]


def _product(left, right):
    return (left.float() @ right.float()).to(left.dtype)


def _bounds(group_list, group_list_type):
    """First and last row of each group."""
    numbers = group_list.tolist() if isinstance(group_list, torch.Tensor) else list(group_list)
    ends = torch.tensor(numbers).cumsum(0).tolist() if group_list_type == 1 else numbers
    check(
        ends == sorted(ends),
        f"npu_grouped_matmul: group_list {numbers} must not fall with group_list_type 0",
    )
    return list(zip([0, *ends], ends, strict=False))
