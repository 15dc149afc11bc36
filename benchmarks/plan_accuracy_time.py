"""Compare the step times that a plan of this machine gives with those of real training on it.

Run: python benchmarks/plan_accuracy_time.py [--case NAME]

The clock on the wall belongs to everything that runs on a machine, and a processor second of a
shared one does now more, now less. So both are processor seconds of a rank by the planner's steady
clock: the step of a small model that is timed beside the plan and beside the run says how fast the
machine was. Medians over steps and over rounds of planning and training in turns. ``raw_error`` is
the error without that clock, ``wall`` what the clock on the wall said, ``steady_clock_ms`` what the
small step took at least and at most, that is how much the machine's speed changed meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mllm_npu.config import load_config
from mllm_npu.device.platform import pick_device
from mllm_npu.device.process import tune_process
from mllm_npu.plan.planner import Planner
from mllm_npu.plan.steady_clock import SteadyClock

STEPS, WARM_UP, ROUNDS = 15, 3, 3
_TINY = ("experiment=digits/mllm", "dataset.tokens_per_pack=1024")
_SMALL = (
    *_TINY,
    "models.language_model.config.hidden_size=256",
    "models.language_model.config.intermediate_size=688",
    "models.language_model.config.num_hidden_layers=4",
)
CASES: dict[str, tuple[int, tuple[str, ...]]] = {
    "tiny, 1 process": (1, (*_TINY, "parallel=single")),
    "small, 1 process": (1, (*_SMALL, "parallel=single")),
    "small, 1 process, recomputed": (1, (*_SMALL, "parallel=single", "parallel.recompute=full")),
    "tiny, 2 processes": (2, (*_TINY, "parallel=fsdp2")),
    "small, 2 processes": (2, (*_SMALL, "parallel=fsdp2")),
    "small, 2 processes, ddp": (2, (*_SMALL, "parallel=ddp")),
    "tiny, 4 processes": (4, (*_TINY, "parallel=fsdp2")),
    "small, 4 processes": (4, (*_SMALL, "parallel=fsdp2")),
}


def measure_times(names: Sequence[str] = (), *, rounds: int = ROUNDS) -> dict[str, Any]:
    """Plan and train cases; figures by name.

    Args:
        names: of cases; none means all.
        rounds: of planning and training in turns; what counts are medians.
    """
    errors: dict[str, float] = {}
    details: dict[str, Any] = {}
    clock: list[float] = []
    for name in names or CASES:
        ranks, overrides = CASES[name]
        folder = Path(tempfile.mkdtemp(prefix="plan-accuracy-"))
        plans, runs = [], []
        try:
            given = [*overrides, *_quiet(folder)]
            for _ in range(rounds):
                plans.append(plan_seconds(given, ranks))
                usual = plans[-1]["usual"]
                clock.append(round(1e3 * usual, 1))
                runs.append(train([*given, "resume=never"], ranks, folder, usual=usual))
                shutil.rmtree(folder / "run", ignore_errors=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        planned, seen = (
            {kind: statistics.median(one[kind] for one in found) for kind in ("wall", "processor")}
            for found in (plans, runs)
        )
        raw = statistics.median(run["raw"] / run["processor"] for run in runs)
        errors[name] = planned["processor"] / seen["processor"] - 1
        print(name, f"{errors[name]:+.1%}", file=sys.stderr, flush=True)
        details[name] = {
            "predicted_ms": round(1e3 * planned["processor"], 1),
            "measured_ms": round(1e3 * seen["processor"], 1),
            "error": round(errors[name], 4),
            "raw_error": round((errors[name] + 1) / raw - 1, 4),
            "predicted_wall_ms": round(1e3 * planned["wall"], 1),
            "wall_ms": round(1e3 * seen["wall"], 1),
        }
    return {
        "time_error_max": round(max(map(abs, errors.values())), 4),
        "time_error_mean": round(statistics.mean(map(abs, errors.values())), 4),
        "time_by_case": details,
        "steady_clock_ms": {"least": min(clock), "most": max(clock)},
    }


def plan_seconds(overrides: Sequence[str], ranks: int) -> dict[str, float]:
    """What a plan says of a step, its data apart; the machine is measured anew."""
    cluster = ["cluster=cpu_here", f"cluster.node_size={ranks}", "cluster.fresh=true"]
    planner = Planner([*overrides, *cluster])
    outcome = planner.look()
    seconds = outcome.step.seconds - outcome.step.parts["data"]
    return {
        "wall": seconds,
        "processor": seconds / outcome.slowdown,
        "usual": planner.calibration().usual,
    }


def train(overrides: Sequence[str], ranks: int, folder: Path, *, usual: float) -> dict[str, float]:
    """Train on some processes; seconds of a step."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command = [sys.executable, *(launch if ranks > 1 else ()), __file__]
    command += ["--worker", str(folder / "seconds.json"), str(usual), *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(done.stderr[-4000:])
    return json.loads((folder / "seconds.json").read_text(encoding="utf-8"))


def work(file: Path, usual: float, overrides: Sequence[str]) -> None:
    """Be a rank: train some steps, and let the first one write what they took."""
    # Beside this file; a plan does not need it.
    from plan_accuracy_worker import build_bare_trainer  # noqa: PLC0415

    config = load_config("training", list(overrides))
    tune_process(config.threads)
    device = pick_device(config.device)
    trainer = build_bare_trainer(config, device)
    mesh = trainer.mesh
    trainer._begin("never")
    trainer.objective.train()
    clock = SteadyClock(device, usual=usual)
    wall, processor, raw = [], [], []
    for step in range(1, STEPS + WARM_UP + 1):
        micro_batches = trainer.feed.next(step)
        mesh.barrier()
        factor = clock.factor()
        mesh.barrier()
        begin, worked = time.perf_counter(), time.process_time()
        counts = mesh.sum(trainer.feed.count(micro_batches))
        trainer._backward(micro_batches, counts)
        trainer.observer.meter.end_step(step, trainer.update.step(1.0))
        wall.append(time.perf_counter() - begin)
        raw.append(time.process_time() - worked)
        processor.append(factor * raw[-1])
    times = {"wall": wall, "processor": processor, "raw": raw}
    middle = {name: statistics.median(taken[WARM_UP:]) for name, taken in times.items()}
    sums = mesh.sum(middle)
    if mesh.is_main:
        found = {name: total / mesh.world_size for name, total in sums.items()}
        file.write_text(json.dumps(found), encoding="utf-8")
    mesh.barrier()
    os._exit(0)


def _quiet(folder: Path) -> list[str]:
    """Settings of a run of which only the steps matter."""
    return [
        "threads=1",
        "initialise_from=null",
        "world_dir=null",
        "preflight=false",
        "tracker=[jsonl]",
        f"run_dir={folder}/run",
        "train.recorder.progress=false",
    ]


def main() -> None:
    """See the module."""
    if sys.argv[1:2] == ["--worker"]:
        work(Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", default=[], choices=list(CASES))
    print(json.dumps(measure_times(parser.parse_args().case)))


if __name__ == "__main__":
    main()
