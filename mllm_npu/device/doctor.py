"""Examine the machine and the installation; each check says what is and what to do about it."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from rich.markup import escape
from rich.table import Table

from mllm_npu.device.memory import available_gib, machine_gib
from mllm_npu.device.platform import PLATFORMS, available_platforms, load_extension, num_devices
from mllm_npu.device.process import busy_cores, choose_threads, usable_cores

State = Literal["good", "notice", "bad"]

_LEAST_PYTHON = (3, 11)
_LEAST_TORCH = (2, 9)
_LEAST_TRANSFORMERS = (5, 20)
_DEMO_MEMORY_GIB = 3.0
_DEMO_DISK_GIB = 2.0


_STYLES: dict[State, str] = {"good": "green", "notice": "yellow", "bad": "bold red"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One row of the examination.

    Args:
        name: what was looked at.
        state: good, notice (works, could be better) or bad (something will fail).
        found: what is, in words and figures.
        advice: what to do; empty where nothing needs doing.
    """

    name: str
    state: State = "good"
    found: str
    advice: str = ""


def run_checks(folder: Path = Path()) -> tuple[Check, ...]:
    """Look at everything a run depends on.

    Args:
        folder: where runs will be written; its disk is measured.
    """
    return (
        _examine_python(),
        _examine_package("torch", _LEAST_TORCH),
        _examine_package("transformers", _LEAST_TRANSFORMERS),
        _examine_torchvision(),
        _examine_threads(),
        _examine_memory(),
        _examine_disk(folder),
        *_examine_devices(),
    )


def checks_table(checks: Sequence[Check]) -> Table:
    """The rows as a table for a terminal."""
    table = Table("check", "state", "found", "advice", box=None, pad_edge=False)
    for check in checks:
        style = _STYLES[check.state]
        state = f"[{style}]{check.state}[/]"
        table.add_row(check.name, state, escape(check.found), escape(check.advice))
    return table


def _examine_python() -> Check:
    found = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] >= _LEAST_PYTHON:
        return Check(name="python", found=found)
    return Check(
        name="python",
        found=f"{found}, needed is {_dotted(_LEAST_PYTHON)} or newer",
        advice="install a newer Python, remove .venv and run make install",
        state="bad",
    )


def _examine_package(name: str, least: tuple[int, int]) -> Check:
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        found = "not installed"
    if found[:1].isdigit() and tuple(int(part) for part in found.split(".")[:2]) >= least:
        return Check(name=name, found=found)
    return Check(
        name=name,
        found=f"{found}, needed is {_dotted(least)} or newer",
        advice="pip install -c constraints.txt -e .",
        state="bad",
    )


def _examine_torchvision() -> Check:
    """A torchvision built for another torch breaks every library that merely sees it installed."""
    if importlib.util.find_spec("torchvision") is None:
        return Check(name="torchvision", found="not installed, not needed")
    reason = load_extension("torchvision")
    if reason is None:
        return Check(name="torchvision", found="installed and importable, not needed")
    return Check(
        name="torchvision",
        found=reason,
        advice="pip uninstall torchvision",
        state="bad",
    )


def _examine_threads() -> Check:
    cores, busy = usable_cores(), busy_cores()
    chosen = choose_threads(cores=cores, busy=busy)
    found = f"{chosen} of {cores} cores would be used, {busy:.1f} are busy with other work"
    if os.environ.get("OMP_WAIT_POLICY", "").lower() == "passive":
        return Check(
            name="threads",
            found=f"{found}; OMP_WAIT_POLICY is passive",
            advice="unset OMP_WAIT_POLICY: it halves the speed of a quiet machine",
            state="notice",
        )
    if chosen < cores:
        advice = "nothing, or wait until the other work is done"
        return Check(name="threads", state="notice", found=found, advice=advice)
    return Check(name="threads", found=found)


def _examine_memory() -> Check:
    available = available_gib()
    found = f"{available:.1f} GiB available of {machine_gib():.1f}"
    if available >= _DEMO_MEMORY_GIB:
        return Check(name="memory", found=found)
    advice = f"free some: the digits demo needs {_DEMO_MEMORY_GIB:.0f} GiB"
    return Check(name="memory", found=found, advice=advice, state="notice")


def _examine_disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free / 2**30
    found = f"{free:.1f} GiB free in {folder.resolve()}"
    if free >= _DEMO_DISK_GIB:
        return Check(name="disk", found=found)
    advice = f"free some: a run of the demo needs up to {_DEMO_DISK_GIB:.0f} GiB"
    return Check(name="disk", found=found, advice=advice, state="notice")


def _examine_devices() -> tuple[Check, ...]:
    """One row per platform of the table, whether it is here or not."""
    here = available_platforms()
    checks = []
    for platform in PLATFORMS:
        if platform in here:
            count = num_devices(torch.device(platform.name))
            found = f"{count} device(s), computes in {str(platform.compute_dtype).split('.')[-1]}"
            checks.append(Check(name=f"device {platform.name}", found=found))
            continue
        reason = load_extension(platform.extension) if platform.extension else None
        installed = platform.extension is not None and _is_installed(platform.extension)
        checks.append(
            Check(
                name=f"device {platform.name}",
                found=reason or "no such device",
                advice=f"to use one: {platform.remedy}",
                state="bad" if installed and reason else "good",
            )
        )
    return tuple(checks)


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(str(part) for part in version)
