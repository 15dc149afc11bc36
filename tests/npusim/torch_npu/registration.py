"""Make torch know the device: its operators, its name, its module and its collective backend."""

from pathlib import Path

import torch
import torch.distributed as dist

from torch_npu import _C, npu

VERSION = "2.13.0+sim"
OPERATORS = Path(__file__).with_name("operators.txt")


def register():
    """Register everything; once per process."""
    _C.register_everything(listed_operators())
    torch.utils.rename_privateuse1_backend("npu")
    torch._register_device_module("npu", npu)
    torch.utils.generate_methods_for_privateuse1_backend(for_storage=True)
    torch._tensor_str.tensor_totype = without_float64(torch._tensor_str.tensor_totype)
    if dist.is_available():
        dist.Backend.register_backend("hccl", make_hccl, devices=["npu"])


def listed_operators():
    """Names of the aten operators the real device has kernels for."""
    lines = OPERATORS.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def without_float64(widen):
    """How the printer of tensors widens numbers, on a device that has no float64."""
    return lambda tensor: tensor.float() if tensor.is_npu else widen(tensor)


def make_hccl(store, rank, size, timeout):
    """A process group's backend for tensors of the device."""
    return _C.make_hccl(dist.ProcessGroupGloo(store, rank, size, timeout), rank, size)
