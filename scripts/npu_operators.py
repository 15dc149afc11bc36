"""List the operators an accelerator's extension of torch has kernels for, for the simulated one.

The list is made where the real extension is installed, and committed. It is the simulation's only
knowledge of what would fall back to the CPU: npu_operators.py [--check]
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

SIMULATION = Path(__file__).resolve().parents[1] / "tests" / "npusim"
KEY = "PrivateUse1"
"""Dispatch key of every extension that torch does not know by name."""


def operators_with_kernel(
    names: Iterable[str], has_kernel: Callable[[str, str], bool]
) -> list[str]:
    """The aten operators among ``names`` that the accelerator computes itself, sorted.

    Args:
        names: such as "aten::add.Tensor".
        has_kernel: whether an operator has a kernel for a dispatch key.
    """
    return sorted(name for name in names if name.startswith("aten::") and has_kernel(name, KEY))


def text_of(operators: Sequence[str], *, source: str, date: str) -> str:
    """The committed file."""
    title = f"# {len(operators)} aten operators with a kernel in {source}, listed on {date}"
    return "\n".join([f"{title} by python scripts/{Path(__file__).name}", *operators, ""])


def read_operators(file: Path) -> list[str]:
    """The operators in a committed file."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def differences(committed: Sequence[str], found: Sequence[str]) -> list[str]:
    """What differs, a line each: "+" only in the extension, "-" only in the file."""
    missing, stale = set(found) - set(committed), set(committed) - set(found)
    return [*(f"+ {name}" for name in sorted(missing)), *(f"- {name}" for name in sorted(stale))]


def installed_extension() -> str | None:
    """Name and version of the extension torch has loaded, None where there is none."""
    points = importlib.metadata.entry_points(group="torch.backends")
    found = [point.dist for point in points if point.dist is not None]
    return f"{found[0].name} {found[0].version}" if found else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the list, or compare with it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the committed file")
    parser.add_argument("--file", type=Path, help="another file than the committed one")
    asked = parser.parse_args(arguments)
    source = installed_extension()
    if source is None or source.endswith("+sim"):
        sys.stderr.write(
            f"error: the real extension has to be installed, this environment has {source}. "
            "Install it without its dependencies and set LD_LIBRARY_PATH to its libraries.\n"
        )
        return 2
    file = asked.file or next(SIMULATION.rglob("operators.txt"))
    names = torch._C._dispatch_get_all_op_names()
    found = operators_with_kernel(names, torch._C._dispatch_has_kernel_for_dispatch_key)
    if not asked.check:
        date = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        file.write_text(text_of(found, source=source, date=date), encoding="utf-8")
        return 0
    lines = differences(read_operators(file), found)
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
