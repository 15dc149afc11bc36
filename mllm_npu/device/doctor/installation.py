"""Check Python, the packages and whether they fit each other; torch itself need not be loadable."""

from __future__ import annotations

import importlib.metadata
import sys

from mllm_npu.device.doctor.check import Check
from mllm_npu.device.doctor.releases import (
    RELEASES,
    fits,
    install_line,
    release_for,
    release_named,
)

_LEAST_PYTHON = (3, 11)
_LEAST = {"torch": (2, 9), "transformers": (5, 20)}
EXTENSION = "torch_npu"


def examine_installation() -> tuple[Check, ...]:
    """Python, the packages that must be there, and the pair of torch and torch_npu."""
    return (
        examine_python(),
        *(examine_package(name, least) for name, least in _LEAST.items()),
        examine_pair(),
    )


def installed_version(name: str) -> str | None:
    """Version of an installed package, with its local suffix; None where there is none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def examine_python() -> Check:
    """Whether the interpreter is new enough."""
    found = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] >= _LEAST_PYTHON:
        return Check(name="python", found=found)
    return Check(
        name="python",
        state="bad",
        found=f"{found}, needed is {_dotted(_LEAST_PYTHON)} or newer",
        advice="install a newer Python, remove .venv and run make install",
    )


def examine_package(name: str, least: tuple[int, int]) -> Check:
    """Whether a package is there and new enough."""
    found = installed_version(name) or "not installed"
    if found[:1].isdigit() and tuple(int(part) for part in found.split(".")[:2]) >= least:
        return Check(name=name, found=found)
    return Check(
        name=name,
        state="bad",
        found=f"{found}, needed is {_dotted(least)} or newer",
        advice="pip install -c constraints.txt -e .",
    )


def examine_pair() -> Check:
    """Whether torch_npu is built for the torch and the Python that are installed."""
    name = "torch with torch_npu"
    torch, extension = installed_version("torch"), installed_version(EXTENSION)
    if extension is None:
        found = f"{EXTENSION} is not installed, only Ascend needs it"
        return Check(name=name, found=found, advice=_how_to_get(torch), is_aside=True)
    if torch is None:
        found = f"{EXTENSION} {extension} without torch"
        advice = f"pip install torch=={extension.partition('.post')[0]}"
        return Check(name=name, state="bad", found=found, advice=advice)
    found = f"torch {torch}, {EXTENSION} {extension}"
    if not fits(torch=torch, torch_npu=extension):
        found += f": {EXTENSION} needs exactly the torch it was built for"
        return Check(name=name, state="bad", found=found, advice=install_line(torch))
    release = release_named(extension)
    if release is None:
        known = ", ".join(dict.fromkeys(row.torch for row in RELEASES))
        advice = f"nothing, if it works; known releases are for torch {known}"
        return Check(name=name, state="notice", found=f"{found}, an unknown release", advice=advice)
    oldest, newest = release.python
    if not oldest <= sys.version_info[:2] <= newest:
        found += f" has wheels for Python {_dotted(oldest)} to {_dotted(newest)}"
        advice = f"use Python {_dotted(newest)}: remove .venv and run make install"
        return Check(name=name, state="bad", found=found, advice=advice)
    return Check(name=name, found=found)


def _how_to_get(torch: str | None) -> str:
    if torch is None or release_for(torch) is None:
        return ""
    return f"on an Ascend machine: {install_line(torch)}"


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(str(part) for part in version)
