"""A stand-in for the package `torch_npu`: an Ascend NPU simulated in the memory of the host.

Found by ``import torch_npu``, and by ``import torch`` itself, wherever the folder that holds it is
on the path. Numbers are the CPU's; devices, streams, memory, generators and rules are an NPU's.
"""
# ruff: noqa: E402 - see _autoload


def _autoload():
    """What ``import torch`` calls; its import of this package has done everything already.

    Defined before anything is imported: where this package comes first, the ``import torch`` inside
    it finds it unfinished and needs only this.
    """


from torch_npu import npu, registration, simulation
from torch_npu.fused import (
    npu_fusion_attention,
    npu_fusion_attention_grad,
    npu_gelu,
    npu_gelu_backward,
    npu_grouped_matmul,
    npu_rms_norm,
    npu_rms_norm_backward,
    npu_rotary_mul,
    npu_rotary_mul_backward,
    npu_swiglu,
    npu_swiglu_backward,
)

__version__ = registration.VERSION
__all__ = [
    "npu",
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
    "simulation",
]

registration.register()
simulation.configure_from_environment()
