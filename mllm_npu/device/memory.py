"""Measure memory: of this process, of the machine, of the accelerator; all in GiB."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import torch

_GIB = 1 << 30
_STATUS = Path("/proc/self/status")
_MACHINE = Path("/proc/meminfo")
_GROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def peak_rss_gib() -> float:
    """Most memory this process has held so far, in GiB."""
    # The kernel's own mark comes first: getrusage's survives exec, so a small program that a large
    # one started would report the large one's peak.
    marked = _field_bytes(_STATUS, "VmHWM")
    if marked is not None:
        return marked / _GIB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _GIB


def rss_gib() -> float:
    """Memory this process holds now, in GiB; its peak where the system does not tell."""
    held = _field_bytes(_STATUS, "VmRSS")
    return peak_rss_gib() if held is None else held / _GIB


def machine_gib() -> float:
    """Memory of the machine, cut to the control group's limit, in GiB."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(total, _group_limit(_GROUP_LIMIT) or total) / _GIB


def available_gib() -> float:
    """Memory that can still be had without swapping, in GiB."""
    free = _field_bytes(_MACHINE, "MemAvailable")
    return machine_gib() if free is None else min(free / _GIB, machine_gib())


def accelerator_peak_gib(device: torch.device) -> float:
    """Most memory tensors have held on ``device`` so far, in GiB; 0 on the CPU."""
    if device.type == "cpu":
        return 0.0
    return float(torch.accelerator.max_memory_allocated(device)) / _GIB


def _field_bytes(table: Path, name: str) -> int | None:
    """A ``Name:  123 kB`` row of a /proc table in bytes, None where table or row is missing."""
    if not table.is_file():
        return None
    for line in table.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None


def _group_limit(limits: Path) -> int | None:
    """The control group's limit in bytes, None where there is none."""
    limit = limits.read_text().strip() if limits.is_file() else "max"
    return None if limit == "max" else int(limit)
