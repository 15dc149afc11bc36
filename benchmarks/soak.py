"""Many clients, random cancels, and a worker killed with -9 every minute: what is lost, and grows.

    python benchmarks/soak.py --json

The whole of ``mllm-npu serve`` runs. Clients chat with and without a stream, ask about pictures,
draw and use the original's API; some leave in the middle. A reply is lost if it ends neither with
its end nor with an error, and hangs if it does not end at all. Growth of memory is that of a
process between the second and the last quarter of its life after it has warmed up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from result_line import print_line
from soak_client import Client

from mllm_npu.build import build_model
from mllm_npu.config import load_config
from mllm_npu.model_folder import save_model_folder
from mllm_npu.processing.special_tokens import SpecialTokens, add_special_tokens
from mllm_npu.processing.tokenizer import train_tokenizer

WARM_UP_SECONDS, SHORTEST_LIFE_SECONDS = 30.0, 30.0
"""A worker loads its model and fills its caches first; one that lived less says nothing."""
IDLE_SECONDS = 60.0
LOADS = ("mllm_npu_running", "mllm_npu_queued", "mllm_npu_controller_in_flight")


def make_model(folder: Path) -> Path:
    """An untrained model of the digits' shape: how well it answers does not matter here."""
    world = folder / "world"
    tokenizer = train_tokenizer(["draw a seven", "which digit is this?"], vocab_size=300)
    add_special_tokens(tokenizer, SpecialTokens(num_slots=16, num_locations=0))
    tokenizer.save_pretrained(world / "tokenizer")
    config = load_config("training", [f"world_dir={world}"])
    save_model_folder(build_model(config), config, folder / "model")
    return folder / "model"


class Serving:
    """``mllm-npu serve`` as a process, and what can be seen of it from outside.

    Args:
        run: folder of the model.
        workers: number of workers.
        logs: folder for what the parts say.
    """

    def __init__(self, run: Path, *, workers: int, logs: Path) -> None:
        command = [sys.executable, "-m", "mllm_npu.cli", "serve", str(run), "--json", "--no-page"]
        command += ["--workers", str(workers), "--port", "0", "--logs", str(logs)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            raise RuntimeError(f"mllm-npu serve did not become ready; see {logs}")
        self.addresses: dict[str, Any] = json.loads(line)
        self.memory: dict[tuple[str, int], list[tuple[float, int]]] = {}
        self.kills = 0

    def children(self) -> dict[str, int]:
        """Port and process id of each part that runs."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                words = (folder / "cmdline").read_text().split("\0")
            except OSError:
                continue
            if int(parent) == self.process.pid and "--port" in words:
                found[words[words.index("--port") + 1]] = int(folder.name)
        return found

    def measure(self) -> None:
        """Take the memory of every process down."""
        ports = {url.rpartition(":")[2] for url in self.addresses["workers"]}
        parts = [("command", self.process.pid)]
        for port, pid in self.children().items():
            parts.append(("worker" if port in ports else "controller", pid))
        for name, pid in parts:
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            kilobytes = [line.split()[1] for line in status.splitlines() if "VmRSS" in line]
            if kilobytes:
                self.memory.setdefault((name, pid), []).append(
                    (time.monotonic(), int(kilobytes[0]))
                )

    def kill_worker(self) -> None:
        """Kill a worker with -9, each in turn; one that is not there now is left out."""
        workers = self.addresses["workers"]
        port = workers[self.kills % len(workers)].rpartition(":")[2]
        pid = self.children().get(port)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            self.kills += 1

    def growth(self) -> dict[str, float]:
        """Largest growth of memory of each kind of process, of those that lived long enough."""
        grown: dict[str, float] = {}
        for (name, _), samples in self.memory.items():
            begin = samples[0][0] + WARM_UP_SECONDS
            life = samples[-1][0] - begin
            early = [size for at, size in samples if 0.25 <= (at - begin) / (life or 1) <= 0.5]
            late = [size for at, size in samples if (at - begin) / (life or 1) >= 0.75]
            if life >= SHORTEST_LIFE_SECONDS and early and late:
                growth = statistics.median(late) / statistics.median(early) - 1
                grown[name] = round(max(growth, grown.get(name, growth)), 4)
        return grown

    def loads(self) -> float:
        """Requests that controller and workers still hold."""
        total = 0.0
        for url in (self.addresses["controller"], *self.addresses["workers"]):
            page = httpx.get(url + "/metrics", trust_env=False, timeout=30).text
            values = dict(line.rsplit(" ", 1) for line in page.splitlines() if line[:1] != "#")
            total += sum(float(values.get(name, 0)) for name in LOADS)
        return total

    def wait_until_idle(self) -> int:
        """What is still held when nobody asks any more."""
        deadline = time.monotonic() + IDLE_SECONDS
        held = float("inf")
        while time.monotonic() < deadline and held:
            time.sleep(0.5)
            try:
                held = self.loads()
            except httpx.HTTPError:  # a worker that was killed last is not there again yet
                continue
        if held == float("inf"):
            raise RuntimeError(f"no figures of all workers in time; see {self.addresses['logs']}")
        return int(held)

    def stop(self) -> int:
        """Stop it as a person does; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(120)
        except subprocess.TimeoutExpired:
            for pid in self.children().values():
                os.kill(pid, signal.SIGKILL)
            self.process.kill()
            return self.process.wait()


async def disturb(serving: Serving, *, seconds: float, kill_every: float) -> None:
    """Measure memory each second, and kill a worker now and then."""
    begin = time.monotonic()
    next_kill = begin + kill_every
    while time.monotonic() < begin + seconds:
        await asyncio.sleep(1.0)
        serving.measure()
        # The last worker that is killed gets time to come back.
        if next_kill <= time.monotonic() < begin + seconds - kill_every / 2:
            serving.kill_worker()
            next_kill += kill_every


async def soak(serving: Serving, asked: argparse.Namespace) -> Counter[str]:
    """Let all clients ask for the whole time; how their requests ended."""
    outcomes: Counter[str] = Counter()
    seconds = asked.minutes * 60
    async with httpx.AsyncClient(
        base_url=serving.addresses["controller"],
        timeout=httpx.Timeout(None, connect=10),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        trust_env=False,
    ) as http:
        clients = [
            Client(
                http, outcomes, chance=random.Random(f"{asked.seed}/{number}"), patience=asked.hang
            )
            for number in range(asked.clients)
        ]
        await asyncio.gather(
            disturb(serving, seconds=seconds, kill_every=asked.kill_every),
            *(client.ask_for(seconds) for client in clients),
        )
    return outcomes


def measure(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Serve, soak, and look at what is left."""
    run = asked.run or make_model(folder)
    serving = Serving(run, workers=asked.workers, logs=folder / "logs")
    try:
        outcomes = asyncio.run(soak(serving, asked))
        leaked, growth = serving.wait_until_idle(), serving.growth()
    finally:
        code = serving.stop()
    return {
        "lost_without_error": outcomes["lost"],
        "hung": outcomes["hung"],
        "rss_growth": max(growth.values(), default=0.0),
        "leaked_slots": leaked,
        "exit_code": code,
        "requests": outcomes.total(),
        "outcomes": dict(sorted(outcomes.items())),
        "kills": serving.kills,
        "minutes": asked.minutes,
        "clients": asked.clients,
        "workers": asked.workers,
        "rss_growth_by_process": growth,
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON line (always done)")
    parser.add_argument("--store", action="store_true", help="append it to benchmarks/results")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kill-every", type=float, default=60.0, help="seconds")
    parser.add_argument("--hang", type=float, default=180.0, help="seconds that are too many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", type=Path, help="folder of a model; else an untrained one is made")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    try:
        figures = measure(folder, asked)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print_line("soak", figures, store=asked.store, file="soak")


if __name__ == "__main__":
    main()
