"""Measure memory: of this process, of the machine, of the accelerator; all in GiB."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from pathlib import Path

import torch

_GIB = 1 << 30
_CLEAR, _CLEAR_PEAK = Path("/proc/self/clear_refs"), "5"
"""Writing this there makes the kernel forget how much the process has held at most."""
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "failed to allocate")
_STATUS = Path("/proc/self/status")
_MACHINE = Path("/proc/meminfo")
_GROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


_highest_gib = 0.0
"""Peak of this process before the kernel was last told to forget it."""


def peak_rss_gib() -> float:
    """Most memory this process has held so far, in GiB."""
    return max(_highest_gib, _peak_since_gib())


def _peak_since_gib() -> float:
    """The peak since the kernel was last told to forget it."""
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


class MemoryGauge:
    """Memory of the device a run computes on; on a CPU that is the process's own.

    Args:
        device: whose memory.

    Attributes:
        name: of the device, for messages.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.name = "this machine" if device.type == "cpu" else device.type

    def limit_gib(self) -> float:
        """What there is: all memory of an accelerator; of a machine what is free or held here."""
        if self.device.type == "cpu":
            return min(available_gib() + rss_gib(), _address_space_gib())
        _, total = torch.accelerator.get_memory_info(self.device)
        return float(total) / _GIB

    def now_gib(self) -> float:
        """What is held now."""
        if self.device.type == "cpu":
            return rss_gib()
        return float(torch.accelerator.memory_allocated(self.device)) / _GIB

    def restart(self) -> None:
        """Forget the peak so far, where the system lets it be forgotten."""
        if self.device.type != "cpu":
            torch.accelerator.reset_peak_memory_stats(self.device)
            return
        # The kernel's own mark is one per process too.
        global _highest_gib
        _highest_gib = peak_rss_gib()
        with contextlib.suppress(OSError):
            _CLEAR.write_text(_CLEAR_PEAK)

    def peak_gib(self) -> float:
        """Most that was held since ``restart``."""
        return _peak_since_gib() if self.device.type == "cpu" else accelerator_peak_gib(self.device)

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether an error says that memory was missing."""
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            return True
        said = str(error).lower()
        return isinstance(error, RuntimeError) and any(mark in said for mark in _OUT_OF_MEMORY)


def _address_space_gib() -> float:
    """What the process can hold until its address space is full; infinite where that has no end."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return float("inf")
    # Much is mapped and not held, such as libraries, and takes of the space all the same.
    mapped, held = (_field_bytes(_STATUS, name) or 0 for name in ("VmSize", "VmRSS"))
    return (limit - max(0, mapped - held)) / _GIB
