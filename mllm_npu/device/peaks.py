"""Know how fast a device can multiply matrices at best, to say what share of that a run reaches."""

from __future__ import annotations

import itertools
import re
import time
from dataclasses import dataclass
from functools import lru_cache

import torch

_CUBE_FLOPS = 2 * 16**3
"""Operations of one Ascend cube core per cycle in 16 bit, a product of 16 x 16 x 16."""
_CANN = "cube cores x clock of CANN's platform_config x 8192; float32: Ascend/msmodeling"
_CPU_SECONDS = 0.3
_CPU_SIZES = (1024, 2048)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """The most a device can do.

    Args:
        flops: operations per second of one device; a multiplication and an addition are two.
        source: where the number comes from, in one line.
    """

    flops: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One kind of accelerator.

    Args:
        name: pattern that covers the whole name under which the device reports itself.
        bfloat16: dense operations per second, without sparsity.
        float32: the same in full float32, without TF32 and HF32.
        source: of the numbers.
    """

    name: str
    bfloat16: float
    float32: float
    source: str


_ROWS = (
    _Row(
        name="Ascend910B1|Ascend910_939[12]",  # the latter is one die of an A3
        bfloat16=24 * 1.85e9 * _CUBE_FLOPS,
        float32=99.5e12,
        source=_CANN,
    ),
    _Row(
        name="Ascend910B2C?|Ascend910_938[12]",
        bfloat16=24 * 1.80e9 * _CUBE_FLOPS,
        float32=99.5e12,
        source=_CANN,
    ),
    _Row(name="Ascend910B3", bfloat16=20 * 1.80e9 * _CUBE_FLOPS, float32=83e12, source=_CANN),
    _Row(
        name="Ascend910B4(-1)?|Ascend910_9362",
        bfloat16=20 * 1.50e9 * _CUBE_FLOPS,
        float32=75e12,
        source=_CANN,
    ),
    _Row(
        name="NVIDIA H100 80GB HBM3",
        bfloat16=989.4e12,
        float32=66.9e12,
        source="NVIDIA H100 architecture white paper, H100 SXM5",
    ),
    _Row(
        name="NVIDIA H100 PCIe",
        bfloat16=756e12,
        float32=51.2e12,
        source="NVIDIA H100 architecture white paper, H100 PCIe",
    ),
    _Row(
        name="NVIDIA H200",
        bfloat16=989.4e12,
        float32=66.9e12,
        source="NVIDIA H200 data sheet, H200 SXM",
    ),
    _Row(
        name="NVIDIA A100-SXM4-[48]0GB|NVIDIA A100-PCI[Ee]-40GB|NVIDIA A100 80GB PCIe",
        bfloat16=312e12,
        float32=19.5e12,
        source="NVIDIA A100 data sheet",
    ),
)


def peak_flops(device: torch.device, dtype: torch.dtype) -> Peak | None:
    """The most one device can do in ``dtype``, from the table; of a CPU, measured in about 0.3 s.

    Args:
        device: an accelerator, of which all have to be of one kind, or the CPU.
        dtype: in which matrices are multiplied.

    Returns:
        None where the table has no such device or dtype: a share of a guess would mean nothing.
    """
    if device.type == "cpu":
        return _measure_cpu(dtype)
    module = torch.get_device_module(device)
    return peak_named(str(module.get_device_name()), dtype)


def peak_named(name: str, dtype: torch.dtype) -> Peak | None:
    """The row of the table for a device that reports itself as ``name``; None without one.

    A part of a device, such as a MIG slice, has a longer name and therefore no row.
    """
    for row in _ROWS:
        if re.fullmatch(row.name, name):
            flops = {torch.bfloat16: row.bfloat16, torch.float32: row.float32}.get(dtype)
            return None if flops is None else Peak(flops=flops, source=f"{name}: {row.source}")
    return None


def _measure_cpu(dtype: torch.dtype) -> Peak:
    return _measure_threads(dtype, torch.get_num_threads())


@lru_cache(maxsize=16)
@torch.no_grad()
def _measure_threads(dtype: torch.dtype, threads: int) -> Peak:
    """The best matrix product of a few sizes with the threads torch uses now.

    In processor time, so that what else runs on the machine does not make the peak look lower.
    """
    best, best_size = 0.0, 0
    operands = [tuple(torch.ones(size, size, dtype=dtype) for _ in range(3)) for size in _CPU_SIZES]
    deadline = time.perf_counter() + _CPU_SECONDS
    for left, right, out in itertools.cycle(operands):
        size = len(left)
        start = time.process_time()
        torch.mm(left, right, out=out)
        spent = max(time.process_time() - start, 1e-9) / threads
        if 2 * size**3 / spent > best:
            best, best_size = 2 * size**3 / spent, size
        if time.perf_counter() > deadline:
            break
    source = f"measured: product of {best_size} x {best_size} in {dtype} with {threads} threads"
    return Peak(flops=best, source=source)
