"""Put the real wheel of torch_npu into a folder of its own, or say why that cannot be.

The wheel loads only with its accelerator's libraries, and two accelerators cannot be in one
environment, so it never goes into the project's own.
"""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mllm_npu.device.doctor.releases import release_for

_SECONDS = 600
_MACHINES = ("x86_64", "aarch64")
_TOOLS = ("gcc", "nm", "readelf")
VARIABLES = {"TORCH_NPU_FALLBACK_CPU_DISABLE": "1"}
"""For checks: an operation without a kernel is an error, not a copy to the host and back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where the wheel lies.

    Args:
        folder: to put into PYTHONPATH.
        version: of the wheel.
        libraries: shared libraries of the wheel whose needs must be met.
    """

    folder: Path
    version: str
    libraries: tuple[Path, ...]


class NotToBeHadError(Exception):
    """The job cannot run here; the message is the reason."""


def obstacle(*, system: str, machine: str, has_tool: dict[str, bool]) -> str | None:
    """Why the job cannot run on a machine; None where it can.

    Args:
        system: as ``platform.system`` says.
        machine: as ``platform.machine`` says.
        has_tool: by name of a program.
    """
    if system != "Linux":
        return f"there are wheels for Linux alone, this is {system}"
    if machine not in _MACHINES:
        return f"there are wheels for {' and '.join(_MACHINES)}, this is {machine}"
    absent = [name for name, there in has_tool.items() if not there]
    return f"{', '.join(absent)} is missing; install gcc and binutils" if absent else None


def prepare(folder: Path) -> Site:
    """Install the wheel that goes with this environment's torch; once per version.

    Args:
        folder: of the job.

    Raises:
        NotToBeHadError: the machine, the network or the package index does not allow it.
    """
    tools = {name: shutil.which(name) is not None for name in _TOOLS}
    reason = obstacle(system=platform.system(), machine=platform.machine(), has_tool=tools)
    if reason is not None:
        raise NotToBeHadError(reason)
    torch = importlib.metadata.version("torch")
    release = release_for(torch)
    if release is None:
        raise NotToBeHadError(f"no torch_npu is known for torch {torch}")
    site = folder / f"site-{release.torch_npu}"
    if not (site / "torch_npu" / "__init__.py").is_file():
        _install(f"torch-npu=={release.torch_npu}", site)
    return Site(folder=site, version=release.torch_npu, libraries=find_libraries(site))


def find_libraries(site: Path) -> tuple[Path, ...]:
    """The wheel's libraries that are loaded at import or by what is tried here."""
    package = site / "torch_npu"
    patterns = (
        "lib/libtorch_npu.so",
        "lib/libtensorpipe.so",
        "lib/libnpu_profiler.so",
        "_C*.so",
        "dynamo/torchair/core/*.so",
    )
    return tuple(path for pattern in patterns for path in sorted(package.glob(pattern)))


def _install(requirement: str, site: Path) -> None:
    """Install without dependencies beside nothing; half an installation never stays."""
    partial = site.with_name(f"{site.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-compile", "--retries", "1", "--target", str(partial)]
    try:
        done = subprocess.run(
            [*command, requirement], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise NotToBeHadError(f"pip took more than {_SECONDS} s for {requirement}") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["without a message"]
        raise NotToBeHadError(f"pip cannot install {requirement}: {said[-1]}")
    partial.rename(site)
