"""Check the accelerators torch sees: how many, which, their memory, what they compute in."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from mllm_npu.device.doctor.check import Check
from mllm_npu.device.peaks import peak_named
from mllm_npu.device.platform import (
    PLATFORMS,
    Platform,
    available_platforms,
    load_extension,
)

_GIB = 1 << 30


def examine_devices() -> tuple[Check, ...]:
    """One row per platform of the table, whether it is here or not, and what it can do."""
    here = available_platforms()
    checks: list[Check] = []
    for platform in PLATFORMS:
        if platform not in here:
            checks.append(_examine_absent(platform))
        elif platform.name == "cpu":
            found = f"computes in {_word(platform.compute_dtype)}"
            checks.append(Check(name="device cpu", found=found))
        else:
            checks += examine_accelerator(platform)
    return tuple(checks)


def examine_accelerator(platform: Platform) -> tuple[Check, ...]:
    """Rows of an accelerator that is here: kind and number, memory, number format, peak."""
    module: Any = torch.get_device_module(platform.name)
    count = int(module.device_count())
    names = [str(module.get_device_name(index)) for index in range(count)]
    return (
        _examine_kind(platform, names),
        _examine_memory(platform, module, count),
        _examine_format(platform, module),
        _examine_peak(platform, names),
    )


def examine_torchvision() -> Check:
    """A torchvision built for another torch breaks every library that merely sees it installed."""
    if importlib.util.find_spec("torchvision") is None:
        return Check(name="torchvision", found="not installed, not needed")
    reason = load_extension("torchvision")
    if reason is None:
        return Check(name="torchvision", found="installed and importable, not needed")
    advice = "pip uninstall torchvision"
    return Check(name="torchvision", state="bad", found=reason, advice=advice)


def examine_conflict() -> Check:
    """One accelerator per torch: a build for another one next to torch_npu cannot be imported."""
    extensions = [row.extension for row in PLATFORMS if row.extension]
    installed = [name for name in extensions if importlib.util.find_spec(name) is not None]
    builds = {"CUDA": torch.version.cuda, "ROCm": getattr(torch.version, "hip", None)}
    built = [f"{name} {version}" for name, version in builds.items() if version]
    name = "one accelerator"
    if installed and built:
        advice = (
            f"on Ascend: the CPU build of torch {torch.__version__.partition('+')[0]}, from an "
            "index that has it (make install TORCH_INDEX=...); elsewhere: pip uninstall torch-npu"
        )
        found = f"torch is built for {', '.join(built)}, and {', '.join(installed)} is installed"
        return Check(name=name, state="bad", found=found, advice=advice)
    return Check(name=name, found=(built or installed or ["torch is built for the CPU"])[0])


def _examine_absent(platform: Platform) -> Check:
    extension = platform.extension
    installed = extension is not None and importlib.util.find_spec(extension) is not None
    reason = load_extension(extension) if extension else None
    advice = f"to use one: {platform.remedy}"
    if installed and reason and ".so" in reason:
        advice = f"source set_env.sh of CANN in this shell; otherwise {platform.remedy}"
    return Check(
        name=f"device {platform.name}",
        state="bad" if installed and reason else "good",
        found=reason or "no such device",
        advice=advice,
    )


def _examine_kind(platform: Platform, names: list[str]) -> Check:
    kinds = sorted(set(names))
    found = f"{len(names)} x {', '.join(kinds)}"
    figures = {"devices": float(len(names))}
    name = f"device {platform.name}"
    if len(kinds) > 1:
        advice = "use devices of one kind in a run: all wait for the slowest"
        return Check(name=name, state="notice", found=found, advice=advice, figures=figures)
    return Check(name=name, found=found, figures=figures)


def _examine_memory(platform: Platform, module: Any, count: int) -> Check:
    sizes = [module.get_device_properties(index).total_memory / _GIB for index in range(count)]
    told = sorted({f"{size:.1f} GiB" for size in sizes})
    return Check(
        name=f"{platform.name} memory",
        found=f"{' or '.join(told)} per device",
        figures={"device_gib": round(min(sizes, default=0.0), 2)},
    )


def _examine_format(platform: Platform, module: Any) -> Check:
    """Whether the device computes in the format runs will use."""
    name = f"{platform.name} number format"
    word = _word(platform.compute_dtype)
    # CUDA also says yes where it only imitates the format, in float32 speed.
    options = {"including_emulation": False} if platform.name == "cuda" else {}
    if platform.compute_dtype != torch.bfloat16 or module.is_bf16_supported(**options):
        return Check(name=name, found=f"computes in {word}")
    advice = "train with parallel.compute_dtype=float32"
    return Check(name=name, state="bad", found=f"does not compute in {word}", advice=advice)


def _examine_peak(platform: Platform, names: list[str]) -> Check:
    name = f"{platform.name} peak"
    peak = peak_named(names[0], platform.compute_dtype) if names else None
    if peak is None:
        advice = "nothing; a run then reports no utilisation (mfu)"
        return Check(name=name, found="no peak known of this device", advice=advice)
    found = f"{peak.flops / 1e12:.0f} TFLOP/s in {_word(platform.compute_dtype)}"
    return Check(name=name, found=found, figures={"peak_flops": peak.flops})


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
