"""How near a plan comes to what a run takes: memory and time of real steps, and a plan of 13B.

    python benchmarks/plan_accuracy.py --json
    python benchmarks/plan_accuracy.py --json --device cuda

Each case is planned by a dry run and then trained for real, by the same code on packs of the same
size, in processes of their own.

- ``memory_error_max``: the largest difference between the planned peak of the device's memory and
  the peak of the fullest rank, divided by the latter. On the simulated NPU (``tests/npusim``) the
  peak is that of its allocator, which rounds as the real one does; on a CPU that of torch's
  allocator, every block as it comes and goes (torch.profiler); on CUDA ``max_memory_allocated``.
  Of several processes only the simulated NPU's account is exact, since on a CPU threads of
  exchanges give blocks back that the profiler does not see.
- ``time_error_max``: the same of step times; see ``plan_accuracy_time.py``.
- ``plan_13b_seconds``, ``plan_13b_rss_gib``: wall time and most memory of a process that makes the
  plan of SEED-X (Llama 2 13B, ViT-G, low-rank updates) on 64 ranks.
- ``cases``: each with planned and measured bytes; on an accelerator also what its allocator took of
  the device (reserved) and what the plan says to that.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plan_accuracy_time import measure_times
from result_line import ROOT, print_line

from mllm_npu.config import load_config
from mllm_npu.device.memory import peak_rss_gib
from mllm_npu.plan.dry_run import trace_step
from mllm_npu.plan.plan import make_plan
from mllm_npu.plan.traced_step import TracedStep

WORKER = Path(__file__).with_name("plan_accuracy_worker.py")
SIMULATION = ROOT / "tests" / "npusim"
SEEDX = (
    "experiment=seedx/pretrain",
    "models/language_model=llama2_13b",
    "models.language_model.path=null",
)
SEEDX_CLUSTER = "910b3_64"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A run that is planned and made.

    Args:
        name: of it.
        device: kind of device.
        ranks: processes.
        settings: what the configuration is changed by.
    """

    name: str
    device: str
    ranks: int
    settings: tuple[str, ...]

    def config(self, folder: Path) -> tuple[str, ...]:
        """All its settings.

        Args:
            folder: where the run may write.
        """
        return (
            *self.settings,
            f"device={self.device}",
            f"run_dir={folder}/run",
            "world_dir=null",
            "initialise_from=null",
            "tracker=[jsonl]",
            "threads=1",
            "preflight=false",
            "train.recorder.progress=false",
        )


def llama(width: int, layers: int, *more: str) -> tuple[str, ...]:
    """SEED with a Llama of another size, on short packs."""
    config = "models.language_model.config"
    return (
        "experiment=digits/mllm",
        f"{config}.hidden_size={width}",
        f"{config}.intermediate_size={width * 8 // 3 // 32 * 32}",
        f"{config}.num_hidden_layers={layers}",
        f"{config}.num_attention_heads=8",
        f"{config}.num_key_value_heads=4",
        "dataset.tokens_per_pack=1024",
        *more,
    )


DIGITS = ("experiment=digits/mllm",)
FULL = "parallel.recompute=full"
CASES = (
    Case(name="digits", device="cpu", ranks=1, settings=(*DIGITS, "parallel=single")),
    Case(name="llama256", device="cpu", ranks=1, settings=llama(256, 4, "parallel=single", FULL)),
    Case(name="llama512", device="cpu", ranks=1, settings=llama(512, 8, "parallel=single")),
    Case(name="digits", device="npu", ranks=1, settings=(*DIGITS, "parallel=single")),
    Case(
        name="vision",
        device="npu",
        ranks=1,
        settings=("experiment=digits/vision", "parallel=single"),
    ),
    Case(
        name="decoder",
        device="npu",
        ranks=1,
        settings=("experiment=digits/decoder", "parallel=single"),
    ),
    Case(name="lora", device="npu", ranks=2, settings=("experiment=digits/lora", "parallel=fsdp2")),
    Case(
        name="digits accumulated",
        device="npu",
        ranks=2,
        settings=(*DIGITS, "parallel=ddp", "train.accumulate=2", "train.ema_decay=0.99"),
    ),
    Case(
        name="digits sequence",
        device="npu",
        ranks=2,
        settings=(*DIGITS, "parallel=fsdp2", "parallel.sequence_size=2"),
    ),
    Case(name="llama256", device="npu", ranks=2, settings=llama(256, 4, "parallel=fsdp2")),
    Case(name="llama512", device="npu", ranks=4, settings=llama(512, 8, "parallel=fsdp2", FULL)),
    Case(name="llama512", device="npu", ranks=1, settings=llama(512, 8, "parallel=single", FULL)),
    Case(
        name="llama512 selective",
        device="npu",
        ranks=4,
        settings=llama(512, 8, "parallel=hsdp", "parallel.recompute=selective"),
    ),
)
SHORT = "dataset.tokens_per_pack=640"
SMALLEST = (
    Case(name="digits", device="cpu", ranks=1, settings=(*DIGITS, "parallel=single", SHORT)),
    Case(name="digits", device="npu", ranks=2, settings=(*DIGITS, "parallel=fsdp2", SHORT)),
)
"""One of each kind of memory; of one and of two ranks."""


def larger(device: str) -> tuple[Case, ...]:
    """Cases for one real accelerator, whose allocator loses something to what does not fit."""
    llama_1b = llama(2048, 12, "dataset.tokens_per_pack=4096", "processor.max_tokens=1024")
    both = ("parallel=single", "parallel=fsdp2")
    return (
        Case(name="digits", device=device, ranks=1, settings=(*DIGITS, both[0])),
        Case(name="llama2048", device=device, ranks=1, settings=(*llama_1b, both[0])),
        Case(name="llama2048 full", device=device, ranks=1, settings=(*llama_1b, both[0], FULL)),
        Case(name="llama2048 sharded", device=device, ranks=1, settings=(*llama_1b, both[1], FULL)),
    )


def measure(case: Case, folder: Path, *, steps: int) -> list[dict[str, Any]]:
    """Train a case; what each rank found.

    Args:
        case: what.
        folder: where the run may write.
        steps: updates whose memory is measured, and as many more whose time is.
    """
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={case.ranks}"]
    launcher = launch if case.ranks > 1 else []
    file = folder / "found"
    command = [sys.executable, *launcher, str(WORKER), str(file), str(steps)]
    done = subprocess.run(
        [*command, *case.config(folder)],
        check=False,
        capture_output=True,
        text=True,
        env=_environment(case.device),
    )
    if done.returncode:
        raise RuntimeError(f"{case.name} on {case.device}: {done.stderr[-4000:]}")
    return [json.loads(Path(f"{file}.{rank}").read_text()) for rank in range(case.ranks)]


def plan(case: Case, folder: Path) -> TracedStep:
    """The dry run of a case."""
    config = load_config("training", case.config(folder))
    return trace_step(config, ranks=case.ranks, device=case.device)


def compare_memory(traced: TracedStep, found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Planned and measured bytes of a case.

    Args:
        traced: the plan.
        found: of each rank.
    """
    peaks = [step["peak"] for rank in found for step in rank["memory"]]
    held = [rank["memory"][-1]["held"] for rank in found]
    reserved = [rank["memory"][-1].get("reserved", 0) for rank in found]
    memory = traced.memory
    return {
        "planned_peak": memory.peak,
        "measured_peak": max(peaks),
        "memory_error": round(abs(memory.peak / max(peaks) - 1), 5),
        "planned_steady": memory.steady,
        "measured_steady": max(held),
        "planned_reserved": memory.peak + memory.margin,
        "measured_reserved": max(reserved),
        "rss_gib": max(rank["rss_gib"] for rank in found),
    }


def measure_case(case: Case, *, steps: int) -> dict[str, Any]:
    """Plan a case and make it."""
    folder = Path(tempfile.mkdtemp(prefix="plan-"))
    try:
        traced = plan(case, folder)
        found = measure(case, folder, steps=steps)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "case": case.name,
        "device": case.device,
        "ranks": case.ranks,
        **compare_memory(traced, found),
    }


def plan_seedx() -> dict[str, float]:
    """Run the dry run of SEED-X in a process of its own."""
    command = [sys.executable, __file__, "--seedx"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-4000:])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _plan_seedx() -> dict[str, float]:
    begin = time.perf_counter()
    plan = make_plan([*SEEDX, f"cluster={SEEDX_CLUSTER}"])
    traced = plan.outcome.traced
    return {
        "plan_13b_seconds": round(time.perf_counter() - begin, 1),
        "plan_13b_rss_gib": round(peak_rss_gib(), 3),
        "plan_13b_peak_gib": round(traced.memory.peak / 2**30, 3),
        "plan_13b_steady_gib": round(traced.memory.steady / 2**30, 3),
    }


def _environment(device: str) -> dict[str, str]:
    folders = [str(SIMULATION)] if device == "npu" and not _has_real_npu() else []
    folders += filter(None, [os.environ.get("PYTHONPATH")])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"}


def _has_real_npu() -> bool:
    return Path("/dev/davinci0").exists()


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON line (always done)")
    parser.add_argument("--store", action="store_true", help="append it to benchmarks/results")
    parser.add_argument("--steps", type=int, default=2, help="updates of each run")
    parser.add_argument("--device", help="real accelerator to plan for and to run on")
    parser.add_argument("--smallest", action="store_true", help="two cases, and no plan of 13B")
    parser.add_argument("--memory", action="store_true", help="leave step times out")
    parser.add_argument("--seedx", action="store_true", help="the plan of 13B alone")
    asked = parser.parse_args()
    if asked.seedx:
        print(json.dumps(_plan_seedx()))
        return
    cases = larger(asked.device) if asked.device else SMALLEST if asked.smallest else CASES
    found = []
    for case in cases:
        found.append(measure_case(case, steps=asked.steps))
        print(json.dumps(found[-1]), file=sys.stderr)
    figures: dict[str, Any] = {
        "memory_error_max": max(case["memory_error"] for case in found),
        "cases": found,
    }
    if not asked.smallest:
        figures |= plan_seedx()
    if not (asked.smallest or asked.memory or asked.device):
        figures |= measure_times()
    print_line("plan_accuracy", figures, store=asked.store, file="plan_accuracy")


if __name__ == "__main__":
    main()
