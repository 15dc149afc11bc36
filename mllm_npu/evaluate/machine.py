"""Describe the machine and the installation that a report was made on."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path

import torch

from mllm_npu import __version__
from mllm_npu.device.memory import machine_gib
from mllm_npu.device.process import usable_cores

PACKAGES = ("torch", "transformers", "diffusers", "tokenizers", "numpy", "pillow", "scikit-learn")
_PROCESSORS = Path("/proc/cpuinfo")


def describe_machine(device: torch.device) -> dict[str, str | int | float]:
    """Processor, cores, memory, system and the device in use."""
    return {
        "device": str(device),
        "processor": _processor_name(_PROCESSORS),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(machine_gib(), 1),
        "system": platform.platform(),
    }


def list_versions() -> dict[str, str]:
    """Versions of Python, this package and what it stands on; "not installed" where it is not."""
    versions = {"python": platform.python_version(), "mllm-npu": __version__}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def _processor_name(file: Path) -> str:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()
