"""Find out which functions of CANN the libraries of the wheel ask for, by name.

Some are linked: undefined symbols that neither the wheel, torch nor the system has. Others are
looked up while the program runs: their names stand as strings in the library.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

_SYSTEM = (
    "libstdc++.so.6",
    "libgcc_s.so.1",
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "librt.so.1",
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
)
_OF_OTHERS = ("Py", "_Py", "__gmon", "_ITM", "__cxa", "_ZTH")
"""Beginnings of names that the interpreter or the compiler provides."""
_STRING = re.compile(rb"[\x20-\x7e]{5,}")
_RUNTIME = re.compile(
    r"(?:acl(?:rt|mdl|op|tdt|prof|sk|dump|Sys)?|Hccl|rt|Msprof|Hcom|aprof)[A-Z]\w+"
)
_OPERATORS = re.compile(
    r"aclnn\w+|acl(?:Create|Destroy|Get|Set|Init)[A-Za-z0-9]+|(?:Un)?InitHugeMem\w*"
    r"|ReleaseHugeMem\w*|(?:Un)?InitPTACacheThreadLocal|SetPTAHashKey|SetPTACacheHashKey"
    r"|CanUsePTACache|PTAGetExecCache\w*|PTAFindExecCache|AddTensorAddrToCachedList"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What stands in for CANN must have.

    Args:
        libraries: file names that the wheel's libraries are linked with and nobody has.
        functions: names of functions, linked or looked up.
        tables: names of type information of C++ classes, which is data.
        operators: names looked up in the library of operators.
    """

    libraries: tuple[str, ...]
    functions: tuple[str, ...]
    tables: tuple[str, ...]
    operators: tuple[str, ...]


def find_needs(libraries: Sequence[Path]) -> Needs:
    """Read the wheel's libraries.

    Args:
        libraries: from ``find_libraries``; the first is the large one.

    Raises:
        subprocess.CalledProcessError: one of them cannot be read.
    """
    torch_libraries = sorted((Path(torch.__file__).parent / "lib").glob("*.so*"))
    bundled = sorted(path for path in libraries[0].parents[2].glob("torch_npu.libs/*"))
    system = [path for name in _SYSTEM if (path := _system_library(name)) is not None]
    around = [*torch_libraries, *bundled, *system]
    missing = missing_symbols(
        {name for library in libraries for name in undefined(library)},
        (name for library in [*libraries, *around] for name in defined(library)),
    )
    strings = strings_in(libraries[0].read_bytes())
    looked_up = matching(strings, _RUNTIME)
    present = {path.name for path in [*libraries, *around]}
    linked = {name for library in libraries for name in linked_with(library)}
    tables = {name for name in missing if is_table(name)}
    return Needs(
        libraries=tuple(sorted(linked - present - set(_SYSTEM))),
        functions=tuple(sorted((missing | looked_up) - tables)),
        tables=tuple(sorted(tables)),
        operators=with_workspaces(matching(strings, _OPERATORS)),
    )


def missing_symbols(wanted: Iterable[str], there: Iterable[str]) -> set[str]:
    """What is wanted and not there, without what the interpreter and the compiler provide."""
    return {name for name in set(wanted) - set(there) if not name.startswith(_OF_OTHERS)}


def strings_in(content: bytes) -> set[str]:
    """Runs of printable characters in a binary."""
    return {found.decode("ascii") for found in set(_STRING.findall(content))}


def matching(strings: Iterable[str], pattern: re.Pattern[str]) -> set[str]:
    """Strings that are such a name from their first letter to their last."""
    return {text for text in strings if pattern.fullmatch(text)}


def with_workspaces(operators: Iterable[str]) -> tuple[str, ...]:
    """Every operator is called in two steps, and the name of the first may be put together."""
    step = "GetWorkspaceSize"
    names = set(operators)
    firsts = {name + step for name in names if name.startswith("aclnn") and step not in name}
    return tuple(sorted(names | firsts))


def is_table(name: str) -> bool:
    """Whether a symbol is data about a C++ class: its type, name or virtual functions."""
    return name.startswith(("_ZTI", "_ZTV", "_ZTS"))


def undefined(library: Path) -> set[str]:
    """Symbols a library needs from others; weak ones it can do without."""
    rows = _symbols(library, "--undefined-only")
    return {name for kind, name in rows if kind == "U"}


def defined(library: Path) -> set[str]:
    """Symbols a library has for others."""
    return {name for _, name in _symbols(library, "--defined-only")}


def linked_with(library: Path) -> list[str]:
    """File names of the libraries it is linked with."""
    shown = _run("readelf", "-d", str(library))
    return re.findall(r"\(NEEDED\).*\[(.+)\]", shown)


def _symbols(library: Path, which: str) -> list[tuple[str, str]]:
    rows = [line.split() for line in _run("nm", "-D", which, str(library)).splitlines()]
    return [(row[-2], row[-1].partition("@")[0]) for row in rows if len(row) >= 2]


def _system_library(name: str) -> Path | None:
    """Where the compiler would take a library from; it gives the bare name of one it has not."""
    path = Path(_run("gcc", f"-print-file-name={name}").strip())
    return path if path.is_absolute() and path.is_file() else None


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
