"""Write constraints.txt: the exact version of every package in this environment."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"
HEADER = (
    "# Versions the tests ran with. Every install in the Makefile passes this file, so that\n"
    "# nothing replaces torch. Written by make constraints.\n"
)


def constraints(frozen: Iterable[str]) -> list[str]:
    """Lines for constraints.txt from lines of ``pip freeze``.

    Editable installs, files and addresses are left out, and so are local suffixes (torch 2.13.0+cpu
    is pinned as 2.13.0), because another machine has another build of the same version.
    """
    pinned = []
    for line in frozen:
        name, equals, version = line.strip().partition("==")
        if equals and not name.startswith(("-", "#")):
            pinned.append(f"{name}=={version.partition('+')[0]}")
    return sorted(pinned, key=str.lower)


def main() -> int:
    """Freeze this interpreter's environment."""
    command = [sys.executable, "-m", "pip", "freeze", "--exclude-editable"]
    frozen = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    CONSTRAINTS.write_text(HEADER + "\n".join(constraints(frozen.splitlines())) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
