"""Run one function on several ranks at once, each a process of its own, bounded in time.

The processes are forked from a server that has imported the package once, and find each other the
way torchrun lets them: through a store that outlives every rank.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

SECONDS = 150.0
"""No launch takes longer; what hangs is killed then, and its logs are shown."""
IMPORTED = [
    "diffusers.models.unets.unet_2d_condition",
    "mllm_npu.export",
    "mllm_npu.models.tiny",
    "mllm_npu.train.objectives.decoder",
    "mllm_npu.train.objectives.vision",
    "mllm_npu.train.trainer",
    "peft.tuners.lora",
    "torch._dynamo",
    "torch.distributed.checkpoint",
    "transformers.models.llama.modeling_llama",
    "transformers.models.siglip.modeling_siglip",
]


class Launch:
    """Processes that run a function each; use ``launch`` where they are only waited for.

    Args:
        function: of a module of this folder; takes ``folder`` and the arguments.
        size: number of ranks.
        folder: for what it writes; what a rank prints goes to ``rank-<N>.log`` in it.
        arguments: of the function, plain values or paths.
    """

    def __init__(
        self, function: Callable[..., Any], size: int, folder: Path, **arguments: Any
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        context = get_context("forkserver")
        context.set_forkserver_preload(IMPORTED)
        self._answers: list[Connection] = []
        self.processes: list[Any] = []
        for rank in range(size):
            here, there = context.Pipe(duplex=False)
            process = context.Process(
                target=_work,
                args=(function, rank, size, self.store.port, there, folder, arguments),
                daemon=True,
            )
            process.start()
            there.close()
            self._answers.append(here)
            self.processes.append(process)

    def signal(self, rank: int, number: signal.Signals) -> None:
        """Send a signal to one rank."""
        os.kill(self.processes[rank].pid, number)

    def log(self, rank: int) -> str:
        """What a rank has printed so far."""
        path = self.folder / f"rank-{rank}.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

    def end(self, seconds: float = SECONDS) -> list[int | None]:
        """Wait for all ranks; exit codes, None for one that had to be killed here."""
        deadline = time.monotonic() + seconds
        with contextlib.ExitStack() as stack:
            for answer in self._answers:
                stack.callback(answer.close)
            for process in self.processes:
                process.join(max(0.0, deadline - time.monotonic()))
            codes = [process.exitcode for process in self.processes]
            for process in self.processes:
                process.kill()
                process.join()
        return codes

    def results(self, seconds: float = SECONDS) -> list[Any]:
        """What the function gave on each rank.

        Raises:
            AssertionError: a rank failed or did not come to its end; with the logs of all.
        """
        deadline = time.monotonic() + seconds
        found: dict[int, Any] = {}
        while len(found) < len(self._answers):
            waiting = {a: r for r, a in enumerate(self._answers) if r not in found}
            ready = connection.wait(list(waiting), max(0.0, deadline - time.monotonic()))
            if not ready:
                break
            for answer in ready:
                with contextlib.suppress(EOFError):
                    found[waiting[answer]] = answer.recv()
                    continue
                found[waiting[answer]] = None
        codes = self.end(max(1.0, deadline - time.monotonic()))
        if any(codes) or len(found) < len(codes):
            logs = "\n".join(f"--- rank {r}: {c}\n{self.log(r)}" for r, c in enumerate(codes))
            raise AssertionError(f"exit codes {codes}, None after {seconds:.0f} s\n{logs}")
        return [found[rank] for rank in range(len(codes))]


def launch(function: Callable[..., Any], *, size: int, folder: Path, **arguments: Any) -> list[Any]:
    """Run a function on ``size`` ranks; what it gave on each, see ``Launch``."""
    return Launch(function, size, folder, **arguments).results()


def _work(
    function: Callable[..., Any],
    rank: int,
    size: int,
    port: int,
    answer: Connection,
    folder: Path,
    arguments: dict[str, Any],
) -> None:
    with (folder / f"rank-{rank}.log").open("ab", buffering=0) as log:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(log.fileno(), stream.fileno())
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in names.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    torch.set_num_threads(1)
    with contextlib.ExitStack() as stack:
        stack.push(_leave)
        answer.send(function(folder, **arguments))
        if dist.is_initialized():
            dist.barrier()


def _leave(kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
    """End without the interpreter's own end: a group that has lost a rank would hold it up."""
    if kind is not None:
        traceback.print_exception(kind, error, trace)
    sys.stderr.flush()
    os._exit(kind is not None)
