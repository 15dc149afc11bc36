"""Check the machine under a run: threads, memory, disk, shared memory, open files."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path

from mllm_npu.device.doctor.check import Check, State
from mllm_npu.device.memory import available_gib, machine_gib
from mllm_npu.device.process import busy_cores, choose_threads, usable_cores

_DEMO_MEMORY_GIB = 3.0
_DEMO_DISK_GIB = 2.0
_SHARED_GIB = 1.0
_OPEN_FILES = 4096
_SHARED = Path("/dev/shm")
_GIB = 1 << 30


def examine_threads() -> Check:
    """How many threads a run would compute with, and what keeps it from using all cores."""
    cores, busy = usable_cores(), busy_cores()
    chosen = choose_threads(cores=cores, busy=busy)
    found = f"{chosen} of {cores} cores would be used, {busy:.1f} are busy with other work"
    figures = {"cores": float(cores), "threads": float(chosen), "busy_cores": round(busy, 2)}
    state: State = "good"
    advice = ""
    if os.environ.get("OMP_WAIT_POLICY", "").lower() == "passive":
        found += "; OMP_WAIT_POLICY is passive"
        state, advice = "notice", "unset OMP_WAIT_POLICY: it halves the speed of a quiet machine"
    elif chosen < cores:
        state, advice = "notice", "nothing, or wait until the other work is done"
    return Check(name="threads", state=state, found=found, advice=advice, figures=figures)


def examine_memory() -> Check:
    """Whether there is memory for the demo."""
    available = available_gib()
    found = f"{available:.1f} GiB available of {machine_gib():.1f}"
    figures = {"available_gib": round(available, 2)}
    if available >= _DEMO_MEMORY_GIB:
        return Check(name="memory", found=found, figures=figures)
    advice = f"free some: the digits demo needs {_DEMO_MEMORY_GIB:.0f} GiB"
    return Check(name="memory", state="notice", found=found, advice=advice, figures=figures)


def examine_disk(folder: Path) -> Check:
    """Whether there is room for runs.

    Args:
        folder: where they will be written.
    """
    free = shutil.disk_usage(folder).free / _GIB
    found = f"{free:.1f} GiB free in {folder.resolve()}"
    figures = {"free_gib": round(free, 2)}
    if free >= _DEMO_DISK_GIB:
        return Check(name="disk", found=found, figures=figures)
    advice = f"free some: a run of the demo needs up to {_DEMO_DISK_GIB:.0f} GiB"
    return Check(name="disk", state="notice", found=found, advice=advice, figures=figures)


def examine_shared_memory(folder: Path = _SHARED) -> Check:
    """Whether worker processes have room to hand their batches over."""
    name = "shared memory"
    if not folder.is_dir():
        return Check(name=name, found=f"this system has no {folder}", is_aside=True)
    usage = shutil.disk_usage(folder)
    found = f"{usage.free / _GIB:.1f} GiB free of {usage.total / _GIB:.1f} in {folder}"
    figures = {"free_gib": round(usage.free / _GIB, 2)}
    if usage.free >= _SHARED_GIB * _GIB:
        return Check(name=name, found=found, figures=figures)
    advice = "data workers hand batches over here; in a container: docker run --shm-size=16g ..."
    return Check(name=name, state="notice", found=found, advice=advice, figures=figures)


def examine_open_files() -> Check:
    """Whether a process may open as many files as shards, workers and ranks need."""
    name = "open files"
    limit, highest = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY or limit >= _OPEN_FILES:
        told = "no limit" if limit == resource.RLIM_INFINITY else f"up to {limit}"
        return Check(name=name, found=told)
    can = _OPEN_FILES if highest == resource.RLIM_INFINITY else min(highest, 65536)
    advice = f"ulimit -n {max(can, limit)}: shards, data workers and ranks open many"
    if highest != resource.RLIM_INFINITY and highest < _OPEN_FILES:
        advice += "; the hard limit is as low, ask the administrator or docker run --ulimit"
    return Check(name=name, state="notice", found=f"up to {limit}", advice=advice)
