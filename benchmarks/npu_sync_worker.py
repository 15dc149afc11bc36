"""Train and answer on the simulated NPU, and count; started by `npu_sync.py`, prints one line."""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch_npu

from mllm_npu.cli import main as run_command
from mllm_npu.data.worlds.digits import make_digits
from mllm_npu.inference.engine import Engine
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.model_folder import find_model_folder, load_model
from mllm_npu.processing.conversation import ask
from mllm_npu.train.trainer import Trainer

STAGES = ("vision", "mllm", "decoder")
WARM_UP = 2
"""Updates that fill caches and tables."""


@dataclass
class Steps:
    """What the updates of one run did, those of the warm-up left out.

    Args:
        syncs: waits of the host by cause, of all updates.
        operators: calls of the device's operators, of all updates.
        seconds: processor time of each update.
        stacks: where the first wait of each cause was.
    """

    syncs: Counter[str] = field(default_factory=Counter)
    operators: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    stacks: dict[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def counted_steps() -> Iterator[Steps]:
    """Count inside updates of the trainers that run in here."""
    steps, begins = Steps(), [0.0]
    backward, after = Trainer._backward, Trainer._after_step

    def begin(trainer: Trainer, *arguments: Any) -> None:
        torch_npu.simulation.stats(reset=True)
        begins[0] = time.process_time()
        backward(trainer, *arguments)

    def end(trainer: Trainer) -> None:
        if trainer.step > WARM_UP:
            steps.seconds.append(time.process_time() - begins[0])
            done = torch_npu.simulation.stats()
            steps.syncs.update(done.syncs)
            steps.operators.update(done.operators)
            steps.stacks.update(done.sync_stacks)
        after(trainer)

    Trainer._backward, Trainer._after_step = begin, end  # type: ignore[method-assign]
    try:
        yield steps
    finally:
        Trainer._backward, Trainer._after_step = backward, after  # type: ignore[method-assign]


def train(folder: Path, run: str, stage: str, device: str, steps: int) -> Steps:
    """One stage in miniature, from the stage before on the same device."""
    typed = [
        *(f"experiment=digits/{stage}", f"world_dir={folder / 'data'}", f"device={device}"),
        *(f"run_dir={folder / run / stage}", f"train.max_steps={steps}", "threads=1"),
        *("train.packs_per_step=1", "train.recorder.progress=false", "tracker=[jsonl]"),
        *("train.throughput.count_flops=false", "parallel.compute_dtype=float32"),
        *("train.schedule.warmup_steps=2", f"train.log_every={steps}", "preflight=false"),
    ]
    number = STAGES.index(stage)
    if number:
        typed.append(f"initialise_from={folder / 'npu' / STAGES[number - 1] / 'model'}")
    with counted_steps() as counted, contextlib.redirect_stdout(sys.stderr):
        if run_command(["train", *typed]):
            message = f"The stage {stage} did not run on {device}."
            raise SystemExit(message)
    return counted


def answer(folder: Path) -> tuple[float, set[str]]:
    """Waits per chosen token, and operators without a kernel in answering and drawing."""
    model, processor, _ = load_model(find_model_folder(folder / "npu" / "decoder"))
    engine = Engine(model=model, processor=processor, device="npu")
    question = ask("Which digit is this?")
    engine.reply(question, GenerationOptions(max_new_tokens=4, images="forbid", seed=1))
    waits, tokens = [], []
    for most in (2, 18):
        torch_npu.simulation.stats(reset=True)
        reply = engine.reply(
            question, GenerationOptions(max_new_tokens=most, images="forbid", seed=1)
        )
        waits.append(sum(torch_npu.simulation.stats().syncs.values()))
        tokens.append(reply.num_new_tokens)
    torch_npu.simulation.stats(reset=True)
    drawn = GenerationOptions(max_new_tokens=4, images="force", image_steps=3, seed=1)
    engine.reply(ask("Draw a seven."), drawn)
    return (waits[1] - waits[0]) / (tokens[1] - tokens[0]), set(
        torch_npu.simulation.stats().fallbacks
    )


def main() -> None:
    """See the module."""
    steps, rounds = map(int, sys.argv[1:])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_digits(folder / "data", scale=0.05)
        ran: dict[str, Steps] = {}
        missing: set[str] = set()
        for stage in STAGES:
            ran[stage] = train(folder, "npu", stage, "npu", steps)
            missing |= set(torch_npu.simulation.stats().fallbacks)
        per_token, in_answers = answer(folder)
        ratios = []
        for number in range(rounds):
            costs = {
                device: statistics.median(
                    train(folder, f"{device}{number}", "mllm", device, steps).seconds
                )
                for device in ("cpu", "npu")
            }
            ratios.append(costs["npu"] / costs["cpu"])
    counted = steps - WARM_UP
    fused = {name: n for name, n in ran["mllm"].operators.items() if name.startswith("npu::")}
    for stage, found in ran.items():
        for cause, stack in found.stacks.items():
            print(f"{stage}: {cause}\n{stack}", file=sys.stderr)
    figures = {
        "host_syncs_per_train_step": max(s.syncs.total() for s in ran.values()) / counted,
        "host_syncs_by_cause": {n: dict(s.syncs) for n, s in ran.items() if s.syncs},
        "host_syncs_per_token": round(per_token, 3),
        "ops_without_npu_kernel": sorted(missing | in_answers),
        "fused_calls": {
            name.removeprefix("npu::"): n / counted for name, n in sorted(fused.items())
        },
        "sim_overhead": round(statistics.median(ratios), 3),
        "steps": counted,
        "device": "simulated npu",
        "torch": torch.__version__,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
