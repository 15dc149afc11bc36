"""Commands under torchrun: the first process speaks, and all leave together."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mllm_npu.commands.console import console, later
from mllm_npu.errors import MllmNpuError

EXIT_FAILED = 2


def is_main_rank() -> bool:
    """Whether this is the first of the processes torchrun has started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def say(line: str) -> None:
    """Tell the person who waits, once for all ranks."""
    if is_main_rank():
        console.print(line)


@contextmanager
def leaving_together() -> Iterator[None]:
    """Ranks that train together end together.

    An error ends the process at once: threads that wait for a rank that is gone would keep it.
    """
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    try:
        yield
    except MllmNpuError as error:
        if not several:
            raise
        said = " ".join(str(error).split())
        sys.stderr.write(f"[rank {os.environ['RANK']}] {type(error).__name__}: {said}\n")
        sys.stderr.flush()
        os._exit(EXIT_FAILED)
    if several:
        later("distributed.mesh").leave()
