"""Ask npu-smi how the NPUs of a machine are; it talks to the driver, not to CANN."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

_SECONDS = 20.0
_VERSION = re.compile(r"npu-smi\s+(\S+)")
_DEVICE = re.compile(r"\|\s*(\d+)\s+([\w.-]*\d[\w.-]*)\s*\|\s*(\w+)\s*\|")
_USAGE = re.compile(r"(\d+)\s*/\s*(\d+)\s*\|?\s*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Npu:
    """One row of npu-smi's table, a chip.

    Args:
        number: of the NPU; chips of one NPU share it.
        name: such as 910B3.
        health: OK, Warning, Alarm, Critical or UNKNOWN.
        used_gib: device memory that is in use.
        total_gib: device memory there is.
    """

    number: int
    name: str
    health: str
    used_gib: float = 0.0
    total_gib: float = 0.0


def ask_npu_smi(command: Sequence[str] = ("npu-smi", "info")) -> str | None:
    """What ``npu-smi info`` prints; None where there is no such program.

    Raises:
        subprocess.SubprocessError: it does not come back in time, or fails.
        OSError: it cannot be started.
    """
    program = shutil.which(command[0])
    if program is None:
        return None
    done = subprocess.run(
        [program, *command[1:]],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[:200]
        raise subprocess.SubprocessError(f"npu-smi ended with code {done.returncode}: {said}")
    return done.stdout


def tool_version(table: str) -> str:
    """Version of npu-smi, which is the driver's; empty where the table names none."""
    match = _VERSION.search(table)
    return match.group(1) if match else ""


def parse_npus(table: str) -> tuple[Npu, ...]:
    """The chips in what ``npu-smi info`` printed.

    A chip takes two lines: number, name and health, then usage, the last pair of which is device
    memory in MB.
    """
    found: list[Npu] = []
    lines = table.partition("Process id")[0].splitlines()
    for first, second in pairwise(lines):
        match = _DEVICE.match(first.strip())
        if match is None or ":" in first:
            continue
        number, name, health = match.groups()
        usage = _USAGE.search(second.strip())
        used, total = (int(part) / 1024 for part in usage.groups()) if usage else (0.0, 0.0)
        found.append(
            Npu(number=int(number), name=name, health=health, used_gib=used, total_gib=total)
        )
    return tuple(found)
