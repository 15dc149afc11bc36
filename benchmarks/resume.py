"""Kill a run with -9 again and again, and see what of it is lost, seen twice, or different.

    python benchmarks/resume.py --json

The multimodal stage of digits on two processes (FSDP2 over gloo), built as the command line builds
it. Three runs of the same configuration: one that nobody disturbs; one that is killed on two
processes all along; one that is killed as well and goes on with one process and with two again.
Moments are random, every third one is the middle of a save. For each update the last attempt
counts, because only that one is part of the result. Losses are those of all updates.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from result_line import print_line

WORKER = Path(__file__).with_name("resume_worker.py")
PATIENCE_SECONDS = 240.0


class Run:
    """A run in a folder of its own, which can be started, killed and read.

    Args:
        folder: of the run.
        world: data set made by ``mllm-npu data digits``.
        steps: updates of the whole run.
        saved_every: updates between checkpoints.
    """

    def __init__(self, folder: Path, *, world: Path, steps: int, saved_every: int) -> None:
        self.folder = folder
        self.attempts = 0
        self.overrides = [
            "experiment=digits/mllm",
            "parallel=fsdp2",
            "tracker=[jsonl]",
            f"world_dir={world}",
            f"tokenizer.path={world}/tokenizer",
            f"run_dir={folder}",
            "initialise_from=null",
            "threads=1",
            "preflight=false",
            "dataset.tokens_per_pack=512",
            "train.packs_per_step=4",
            "train.log_every=1",
            "train.throughput.count_flops=false",
            "train.recorder.progress=false",
            f"train.max_steps={steps}",
            f"train.checkpoint_every={saved_every}",
        ]

    def start(self, num_processes: int) -> subprocess.Popen[bytes]:
        """Begin, or go on from the newest checkpoint."""
        self.attempts += 1
        journal = self.folder / "journal" / f"{self.attempts:03d}"
        launch = ["-m", "torch.distributed.run", "--standalone"]
        launch += [f"--nproc-per-node={num_processes}", str(WORKER), str(journal), *self.overrides]
        log = self.folder.with_suffix(".log").open("ab")
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, *launch],
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=environment,
        )

    def finish(self, num_processes: int) -> None:
        """Train to the end without a disturbance."""
        process = self.start(num_processes)
        if process.wait(timeout=20 * PATIENCE_SECONDS):
            raise RuntimeError(self.folder.with_suffix(".log").read_text()[-4000:])

    def kill(self, num_processes: int, *, steps: int, in_save: bool, chance: random.Random) -> bool:
        """Start, and kill all processes with -9 after some updates.

        Returns:
            Whether it died in the middle of a save.
        """
        process = self.start(num_processes)
        begin, deadline = self.done(), time.monotonic() + PATIENCE_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            if self.done() >= begin + steps:
                break
            time.sleep(0.01)
        if in_save:
            while process.poll() is None and not self.is_saving() and time.monotonic() < deadline:
                time.sleep(0.0005)
        else:
            time.sleep(chance.random() * 0.5)
        was_saving = self.is_saving()
        # The launcher first, or it would notice; its workers are in sessions of their own.
        workers = _children(process.pid)
        for number in (process.pid, *workers):
            os.kill(number, signal.SIGKILL)
        process.wait()
        return was_saving

    def done(self) -> int:
        """Updates that are logged."""
        return len(self.losses())

    def is_saving(self) -> bool:
        """Whether a checkpoint is being written."""
        return any((self.folder / "checkpoints").glob("*.partial"))

    def losses(self) -> dict[int, float]:
        """Loss of each update, of its last attempt."""
        try:
            lines = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return {}
        found = {}
        for line in lines:
            try:
                values = json.loads(line)
            except json.JSONDecodeError:
                continue
            if "loss" in values:
                found[int(values["step"])] = float(values["loss"])
        return found

    def samples(self) -> dict[int, Counter[str]]:
        """Samples of each update, of its last attempt."""
        seen: dict[int, tuple[int, Counter[str]]] = {}
        for file in sorted((self.folder / "journal").glob("*/*.jsonl")):
            attempt = int(file.parent.name)
            for line in file.read_text(encoding="utf-8").splitlines():
                values = json.loads(line)
                newest, counter = seen.get(values["step"], (0, Counter()))
                if attempt > newest:
                    counter = Counter()
                counter.update(values["keys"])
                seen[values["step"]] = (attempt, counter)
        return {step: counter for step, (_, counter) in seen.items()}


def _children(parent: int) -> list[int]:
    """Processes a process has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(after_name[1]) == parent:
            found.append(int(stat.parent.name))
    return found


def compare(run: Run, reference: Run) -> dict[str, Any]:
    """What a run lost, saw twice, and how far its losses are from those of another."""
    ours, truth = run.samples(), reference.samples()
    lost = sum((truth[step] - ours.get(step, Counter())).total() for step in truth)
    repeated = sum((ours[step] - truth.get(step, Counter())).total() for step in ours)
    mine, right = run.losses(), reference.losses()
    if set(mine) != set(right):
        raise RuntimeError(f"updates {sorted(set(mine) ^ set(right))[:5]} have no loss in one run")
    return {
        "lost": lost,
        "repeated": repeated,
        "abs": max(abs(mine[step] - right[step]) for step in right),
        "rel": max(abs(mine[step] - right[step]) / abs(right[step]) for step in right),
    }


def measure(folder: Path, *, kills: int, steps: int, saved_every: int, seed: int) -> dict[str, Any]:
    """Make the data, train three runs, and compare them."""
    chance = random.Random(seed)
    world = folder / "digits"
    command = [sys.executable, "-m", "mllm_npu.cli", "data", "digits", "--out", str(world)]
    subprocess.run(command, check=True, capture_output=True)
    options = {"world": world, "steps": steps, "saved_every": saved_every}
    reference = Run(folder / "undisturbed", **options)
    reference.finish(2)
    same, changing = Run(folder / "killed", **options), Run(folder / "changed", **options)
    of_same = kills - kills // 3
    in_saves = 0
    for number in range(of_same):
        in_saves += _kill(same, 2, number, chance, steps // (of_same + 1))
    same.finish(2)
    # From two processes to one and to two again, with kills at each.
    worlds = [2, 1, 2]
    of_changing = kills - of_same
    for number in range(of_changing):
        num_processes = worlds[number * len(worlds) // of_changing]
        in_saves += _kill(changing, num_processes, number, chance, steps // (of_changing + 1))
    changing.finish(2)
    one, other = compare(same, reference), compare(changing, reference)
    used = {
        json.loads(line)["world"]
        for file in (changing.folder / "journal").glob("*/*.jsonl")
        for line in file.read_text().splitlines()
    }
    return {
        "samples_lost": one["lost"] + other["lost"],
        "samples_repeated": one["repeated"] + other["repeated"],
        "loss_max_abs_diff": one["abs"],
        "loss_max_rel_diff": other["rel"],
        "kills": kills,
        "kills_in_saves": in_saves,
        "world_sizes": [2, *sorted(used - {2}), 2],
        "steps": steps,
        "saved_every": saved_every,
        "samples": sum(counter.total() for counter in reference.samples().values()),
        "attempts": same.attempts + changing.attempts,
    }


def _kill(run: Run, num_processes: int, number: int, chance: random.Random, room: int) -> bool:
    steps = chance.randint(1, max(1, room))
    return run.kill(num_processes, steps=steps, in_save=number % 3 == 2, chance=chance)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON line (always done)")
    parser.add_argument("--store", action="store_true", help="append it to benchmarks/results")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--saved-every", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the runs, which then stay")
    asked = parser.parse_args()
    folder = asked.keep or Path(tempfile.mkdtemp(prefix="resume-"))
    try:
        figures = measure(
            folder,
            kills=asked.kills,
            steps=asked.steps,
            saved_every=asked.saved_every,
            seed=asked.seed,
        )
    finally:
        if asked.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    print_line("resume", figures, store=asked.store, file="resume")


if __name__ == "__main__":
    main()
