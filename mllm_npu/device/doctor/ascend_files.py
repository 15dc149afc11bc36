"""Read what the installers of CANN and of the Ascend driver leave on a machine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_HOMES = ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH")
"""Variables that set_env.sh of CANN sets."""
_DEFAULT_HOMES = ("cann", "ascend-toolkit/latest", "nnae/latest", "nnrt/latest")
_INSTALL_FILES = ("ascend_toolkit_install.info", "*_install.info", "*-linux/*_install.info")
_COMPONENT_FILES = ("compiler/version.info", "runtime/version.info", "opp/version.info")
_RUNNING = re.compile(r"_running_version=\[(?:[^\]:]*:)?([^\]]+)\]")
_FAMILY = re.compile(r"V\d+R\d+C\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cann:
    """A CANN on this machine.

    Args:
        home: its folder.
        version: such as 8.5.0 or 8.3.RC1; empty where its files name none.
        family: of its inner version, such as V100R001C23; empty where unknown.
        works_with: families of drivers it names as compatible; empty where it names none.
        is_active: whether its set_env.sh was sourced in this shell.
    """

    home: Path
    version: str = ""
    family: str = ""
    works_with: tuple[str, ...] = ()
    is_active: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """The driver on this machine.

    Args:
        version: such as 25.3.rc1; empty where its file names none.
        family: of its inner version.
        works_with: families of CANN it names as compatible.
    """

    version: str = ""
    family: str = ""
    works_with: tuple[str, ...] = ()


def find_cann(
    environment: Mapping[str, str], root: Path = Path("/usr/local/Ascend")
) -> Cann | None:
    """The CANN this shell uses, or the one that lies where installers put it.

    Args:
        environment: variables of the process.
        root: folder of Ascend software.
    """
    for name in _HOMES:
        home = Path(environment[name]) if environment.get(name) else None
        if home is not None and home.is_dir():
            return read_cann(home, is_active=True)
    candidates = [root / name for name in _DEFAULT_HOMES] + sorted(
        root.glob("cann-*"), reverse=True
    )
    home = next((folder for folder in candidates if folder.is_dir()), None)
    return None if home is None else read_cann(home, is_active=False)


def read_cann(home: Path, *, is_active: bool) -> Cann:
    """Version and compatibility of the CANN in a folder, from whichever of its files tells them."""
    fields = _first_fields(home, _INSTALL_FILES)
    version = fields.get("version", "") or _running_version(home / "version.cfg")
    if not version:
        # The component's own number: before CANN 8.5 it is another count, such as 7.6.0.1.220.
        inner = _first_fields(home, _COMPONENT_FILES)
        version = inner.get("version_dir", "") or inner.get("version", "")
    return Cann(
        home=home,
        version=version,
        family=_family(fields.get("innerversion", "")),
        works_with=_families(fields.get("compatible_version", "")),
        is_active=is_active,
    )


def read_driver(file: Path = Path("/usr/local/Ascend/driver/version.info")) -> Driver | None:
    """The driver a version.info describes; None without one."""
    if not file.is_file():
        return None
    fields = read_fields(file)
    return Driver(
        version=fields.get("version", "") or fields.get("package_version", ""),
        family=_family(fields.get("innerversion", "")),
        works_with=_families(fields.get("compatible_version", "")),
    )


def read_fields(file: Path) -> dict[str, str]:
    """``name=value`` lines of a file, names in lower case."""
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}


def know_each_other(cann: Cann, driver: Driver) -> bool | None:
    """Whether one of the two names the other as compatible; None where neither names anything."""
    says_cann = driver.family in cann.works_with if cann.works_with and driver.family else None
    says_driver = cann.family in driver.works_with if driver.works_with and cann.family else None
    said = [answer for answer in (says_cann, says_driver) if answer is not None]
    return any(said) if said else None


def device_files(folder: Path = Path("/dev")) -> tuple[int, tuple[str, ...]]:
    """How many device files there are, and which of those every device needs are missing."""
    devices = [path for path in folder.glob("davinci*") if path.name[len("davinci") :].isdigit()]
    needed = ("davinci_manager", "devmm_svm", "hisi_hdc")
    missing = tuple(name for name in needed if not (folder / name).exists())
    return len(devices), missing


def _first_fields(home: Path, patterns: Iterable[str]) -> dict[str, str]:
    for pattern in patterns:
        for file in sorted(home.glob(pattern)):
            if fields := read_fields(file):
                return fields
    return {}


def _running_version(file: Path) -> str:
    """The version in lines such as ``runtime_running_version=[7.6.0.1.220:8.0.0]``."""
    if not file.is_file():
        return ""
    match = _RUNNING.search(file.read_text(encoding="utf-8", errors="replace"))
    return match.group(1) if match else ""


def _family(text: str) -> str:
    match = _FAMILY.search(text)
    return match.group() if match else ""


def _families(text: str) -> tuple[str, ...]:
    return tuple(_FAMILY.findall(text))
