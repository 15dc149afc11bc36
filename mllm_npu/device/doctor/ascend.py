"""Check what torch_npu stands on: CANN, the driver, the device files and the NPUs' own report."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from mllm_npu.device.doctor.ascend_files import (
    Cann,
    Driver,
    device_files,
    find_cann,
    know_each_other,
    read_driver,
)
from mllm_npu.device.doctor.check import Check, State
from mllm_npu.device.doctor.installation import EXTENSION, installed_version
from mllm_npu.device.doctor.npu_smi import Npu, ask_npu_smi, parse_npus, tool_version
from mllm_npu.device.doctor.releases import SOURCE, compare_cann, release_named

_ROOT = Path("/usr/local/Ascend")
_RUNTIME = "libascendcl.so"
_DEVICES = Path("/dev")
_MUCH_IN_USE = 0.2
"""Share of device memory; an idle NPU holds about 5 % for itself."""


def is_ascend(root: Path = _ROOT, devices: Path = _DEVICES) -> bool:
    """Whether anything of Ascend is on this machine: the package, software or devices."""
    return (
        installed_version(EXTENSION) is not None
        or find_cann(os.environ, root) is not None
        or read_driver(root / "driver/version.info") is not None
        or device_files(devices)[0] > 0
    )


def examine_cann(root: Path = _ROOT, devices: Path = _DEVICES) -> Check:
    """Whether CANN is here, is used by this shell and is the one torch_npu was tested with."""
    cann = find_cann(os.environ, root)
    if cann is None:
        if not is_ascend(root, devices):
            return Check(name="CANN", found="not here, only Ascend needs it", is_aside=True)
        advice = "install CANN (toolkit and the kernels of the chip), then source its set_env.sh"
        if runtime_loads():
            found = f"its libraries load, but none is in {root}, so the version is not known"
            return Check(name="CANN", state="notice", found=found, advice="source its set_env.sh")
        return Check(name="CANN", state="bad", found=f"none in {root}", advice=advice)
    found = f"{cann.version or 'unknown version'} in {cann.home}"
    if not cann.is_active and not runtime_loads():
        found += ", but this shell does not use it"
        advice = f"source {_settings_script(cann.home)}"
        state: State = "bad" if installed_version(EXTENSION) is not None else "notice"
        return Check(name="CANN", state=state, found=found, advice=advice)
    return _compare_with_release(cann, found)


def runtime_loads() -> bool:
    """Whether the dynamic loader finds CANN in this shell, from wherever."""
    try:
        ctypes.CDLL(_RUNTIME)
    except OSError:
        return False
    return True


def examine_driver(root: Path = _ROOT, devices: Path = _DEVICES) -> Check:
    """Whether the driver is here and knows the CANN, or the CANN it."""
    driver = read_driver(root / "driver/version.info")
    if driver is None:
        if not is_ascend(root, devices):
            return Check(name="driver", found="not here, only Ascend needs it", is_aside=True)
        advice = (
            "install the Ascend driver and firmware; in a container mount /usr/local/Ascend/driver"
        )
        found = f"no {root / 'driver/version.info'}"
        return Check(name="driver", state="notice", found=found, advice=advice)
    found = driver.version or "unknown version"
    cann = find_cann(os.environ, root)
    if cann is not None and know_each_other(cann, driver) is False:
        return _strangers(cann, driver)
    return Check(name="driver", found=found)


def examine_device_files(devices: Path = _DEVICES) -> Check:
    """Whether the files through which programs reach the NPUs are all here and may be opened."""
    name = "device files"
    count, missing = device_files(devices)
    if count == 0:
        return Check(name=name, found=f"no NPU in {devices}", is_aside=True)
    found = f"{count} NPU(s) in {devices}"
    if missing:
        options = " ".join(f"--device={devices / file}" for file in missing)
        found += f", missing: {', '.join(missing)}"
        return Check(name=name, state="bad", found=found, advice=f"docker run {options} ...")
    closed = [path.name for path in devices.glob("davinci[0-9]*") if not os.access(path, os.R_OK)]
    if closed:
        found += f", not readable: {', '.join(sorted(closed))}"
        advice = "add the user to the group of the driver: usermod -a -G HwHiAiUser USER"
        return Check(name=name, state="bad", found=found, advice=advice)
    return Check(name=name, found=found)


def examine_npus() -> Check:
    """Whether every NPU says that it is well, and has its memory free."""
    name = "npu-smi"
    table = ask_npu_smi()
    if table is None:
        return Check(name=name, found="no such program, only Ascend has it", is_aside=True)
    npus = parse_npus(table)
    version = tool_version(table)
    if not npus:
        advice = "run npu-smi info: where it lists no NPU, the driver or the container hides them"
        return Check(name=name, state="notice", found=f"{version}: no NPU listed", advice=advice)
    found = f"{version}: {_describe(npus)}"
    ill = [npu for npu in npus if npu.health.upper() != "OK"]
    if ill:
        told = ", ".join(f"NPU {npu.number} is {npu.health}" for npu in ill)
        advice = "npu-smi info -t health -i NUMBER names the fault; leave these NPUs out of runs"
        severity: State = "notice" if all(npu.health == "Warning" for npu in ill) else "bad"
        return Check(name=name, state=severity, found=f"{found}; {told}", advice=advice)
    taken = [npu for npu in npus if npu.total_gib and npu.used_gib / npu.total_gib > _MUCH_IN_USE]
    if taken:
        told = ", ".join(
            f"NPU {npu.number} {npu.used_gib:.0f} of {npu.total_gib:.0f} GiB" for npu in taken
        )
        advice = "end the other processes (npu-smi info lists them), or ASCEND_RT_VISIBLE_DEVICES"
        return Check(name=name, state="notice", found=f"{found}; in use: {told}", advice=advice)
    return Check(name=name, found=found)


def _compare_with_release(cann: Cann, found: str) -> Check:
    """A CANN in use, beside the one torch_npu was tested with."""
    extension = installed_version(EXTENSION)
    release = release_named(extension) if extension else None
    if not cann.version:
        advice = f"see that {cann.home} holds a whole installation: no file there names a version"
        return Check(name="CANN", state="notice", found=found, advice=advice)
    if release is None or extension is None:
        return Check(name="CANN", found=found)
    if release.cann is None:
        return Check(name="CANN", found=f"{found}; none is named yet for {EXTENSION} {extension}")
    order = compare_cann(cann.version, release.cann)
    if order == 0:
        return Check(name="CANN", found=found)
    relation = "older" if order < 0 else "newer"
    return Check(
        name="CANN",
        state="notice",
        found=f"{found}, {relation} than {release.cann}, tested with {EXTENSION} {extension}",
        advice=f"install CANN {release.cann}, or the {EXTENSION} of yours: {SOURCE}",
    )


def _strangers(cann: Cann, driver: Driver) -> Check:
    return Check(
        name="driver",
        state="notice",
        found=(
            f"{driver.version} ({driver.family}) and CANN {cann.version} ({cann.family}) do not "
            "name each other as compatible"
        ),
        advice=f"install a driver of one of {', '.join(cann.works_with or (cann.family,))}, "
        "or a CANN that goes with this one",
    )


def _settings_script(home: Path) -> Path:
    """Where the script that activates a CANN lies: in its folder, or beside ``latest``."""
    return home.parent / "set_env.sh" if home.name == "latest" else home / "set_env.sh"


def _describe(npus: tuple[Npu, ...]) -> str:
    kinds = ", ".join(sorted({npu.name for npu in npus}))
    return f"{len(npus)} x {kinds}, {npus[0].total_gib:.0f} GiB each"
