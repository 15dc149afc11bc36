"""Refuse misuse of the fused operators: what they all share, and the smaller ones."""

import torch

FLOATS = (torch.float16, torch.bfloat16, torch.float32)


def check(condition, message):
    """Raise what the real host code raises."""
    if not condition:
        raise RuntimeError(message)


def check_place(name, *tensors):
    """The one device all tensors are on."""
    devices = {tensor.device for tensor in tensors}
    check(
        len(devices) == 1,
        "Expected all tensors to be on the same device. Expected NPU tensor, please check whether "
        f"the input tensor device is correct. (npu::{name} got {sorted(map(str, devices))})",
    )
    return devices.pop()


def check_rms_norm(tensor, gamma):
    """Arguments of npu_rms_norm."""
    trailing = tensor.shape[tensor.dim() - gamma.dim() :]
    check(
        trailing == gamma.shape,
        f"npu_rms_norm: gamma must have the trailing shape of the input, {list(tensor.shape)}, but "
        f"got {list(gamma.shape)}",
    )
    check(
        tensor.dtype in FLOATS and gamma.dtype in (tensor.dtype, torch.float32),
        f"npu_rms_norm: input {tensor.dtype} with gamma {gamma.dtype} is not supported; gamma has "
        "the input's dtype or float32",
    )


def check_rotary(tensor, cos, sin, mode, rotate):
    """Arguments of npu_rotary_mul."""
    check(mode in ("half", "interleave"), f"rotary_mode should be half or interleave, got {mode}")
    check(
        tensor.dim() in (3, 4) and cos.dim() == tensor.dim() == sin.dim(),
        "The dim of input tensor should be equal to 4 (or 3), and to that of r1 and r2, but got "
        f"{tensor.dim()}, {cos.dim()}, {sin.dim()}",
    )
    check(
        cos.shape == sin.shape and cos.shape[-1] == tensor.shape[-1] and cos.shape[-1] % 2 == 0,
        f"npu_rotary_mul: r1 {list(cos.shape)} and r2 {list(sin.shape)} must end with the even "
        f"head width of the input {list(tensor.shape)}",
    )
    check(
        all(size in (1, full) for size, full in zip(cos.shape, tensor.shape, strict=True)),
        f"npu_rotary_mul: r1 {list(cos.shape)} does not broadcast to {list(tensor.shape)}",
    )
    check(
        tensor.dtype == cos.dtype == sin.dtype,
        f"npu_rotary_mul: input, r1 and r2 must have one dtype, but got {tensor.dtype}, "
        f"{cos.dtype}, {sin.dtype}",
    )
    if rotate is not None:
        raise NotImplementedError("npu_rotary_mul: rotate is not simulated")


def check_swiglu(tensor, dim):
    """Arguments of npu_swiglu."""
    check(
        tensor.shape[dim] % 2 == 0,
        f"npu_swiglu: dimension {dim} of {list(tensor.shape)} must be even",
    )


def check_gelu(approximate):
    """Arguments of npu_gelu."""
    check(approximate in ("none", "tanh"), f"approximate must be none or tanh, got {approximate}")
