"""Keep processes busy beside a measurement, as the other ranks of a run do.

They take caches, bandwidth of the memory and, where there are too few cores, turns.

Shape letters: T tokens, D width.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from mllm_npu.device.process import usable_cores

_READY = "ready"
_TOKENS, _WIDTH = 512, 256
_ROUNDS = 50
_REST = 1.0
"""Times as long as they have computed, neighbours rest."""


@contextmanager
def neighbours(ranks: int) -> Iterator[int]:
    """Processes that compute while this is open; gives how many.

    Args:
        ranks: of the run, this process among them; more than twice the cores change nothing more.
    """
    count = max(0, min(ranks, 2 * usable_cores()) - 1)
    command = [sys.executable, "-m", "mllm_npu.plan.neighbours", str(os.getpid())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with ExitStack() as stack:
        started = []
        for _ in range(count):
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
            )
            stack.callback(_end, process)
            started.append(process)
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()
        yield count


def work(parent: int) -> None:
    """Compute what a language model does, until the process that asked is gone.

    Args:
        parent: that process's number.
    """
    torch.set_num_threads(1)
    weights_DD, states_TD = torch.rand(_WIDTH, _WIDTH), torch.rand(_TOKENS, _WIDTH)
    sys.stdout.write(f"{_READY}\n")
    sys.stdout.flush()
    with torch.no_grad():
        while os.getppid() == parent:
            begin = time.perf_counter()
            for _ in range(_ROUNDS):
                (states_TD @ weights_DD).softmax(dim=-1).mul_(states_TD).add_(states_TD)
            # Ranks wait for each other, so none of them is busy all the time.
            time.sleep(_REST * (time.perf_counter() - begin))


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


if __name__ == "__main__":
    work(int(sys.argv[1]))
