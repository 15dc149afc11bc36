"""Start a program that ends with the process that started it, also when that one is killed.

    python mllm_npu/serve/tether.py PARENT PROGRAM ARGUMENT...

A process that is killed cannot stop what it has started, but Linux can: this file asks it to, and
becomes the program. Elsewhere the program runs on.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

_DEATH_SIGNAL = 1
"""``PR_SET_PDEATHSIG`` of Linux's ``prctl.h``."""
EXIT_NO_PROGRAM = 127
"""What shells say of a program that cannot be started."""


def tethered(command: Sequence[str]) -> tuple[str, ...]:
    """The command that starts ``command`` tied to this process.

    The kernel watches the thread that starts it, so it is to be one that lives as long as the
    process does.
    """
    # Without site packages and the folder of this file: 10 ms.
    return (sys.executable, "-P", "-S", str(Path(__file__)), str(os.getpid()), *command)


def tie_to(parent: int) -> None:
    """Have the kernel kill this process, at once, when its parent ends.

    A port that is held while replies come to their end would keep the next service from starting.

    Args:
        parent: process that started this one; when it has gone already, this one goes too.
    """
    if sys.platform != "linux":
        return
    if ctypes.CDLL(None, use_errno=True).prctl(_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0) != 0:
        why = os.strerror(ctypes.get_errno())
        sys.stderr.write(f"this process is not tied to {parent}, the system says: {why}\n")
    elif os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def main(arguments: Sequence[str]) -> int:
    """Become the program; returns only where there is none."""
    parent, *command = arguments
    tie_to(int(parent))
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"{command[0]} cannot be started: {error.strerror}\n")
    return EXIT_NO_PROGRAM


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
