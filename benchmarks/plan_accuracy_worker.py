"""Train a few updates for real, and say what each took of the device's memory and of time.

It is started by `plan_accuracy.py`, alone or by torchrun: plan_accuracy_worker.py FILE STEPS
OVERRIDE... The packs are those a plan assumes (`mllm_npu.plan.fake_pack`), so that a plan and a run
are of the same work; everything else is the product's own training.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from mllm_npu.batch import Batch
from mllm_npu.build import build_objective, build_part, place_objective
from mllm_npu.composition import StartingValues
from mllm_npu.config import Config, load_config, to_yaml
from mllm_npu.device.memory import peak_rss_gib
from mllm_npu.device.platform import pick_device
from mllm_npu.device.process import tune_process
from mllm_npu.distributed.mesh import Mesh
from mllm_npu.plan.fake_pack import PackSize, PictureSize, make_pack, pack_size
from mllm_npu.train.trainer import Trainer

_WARM_UP = 2
_STEP, _CHANGE = "measured step", "[memory]"


class Packs:
    """Endless packs of one size; see `mllm_npu.train.run_state.Batches`.

    Args:
        config: of the run.
        model: that learns from them.
        rank: whose packs they are.
    """

    def __init__(self, config: Config, model: Any, *, rank: int) -> None:
        self.pictures = PictureSize.of(model, config)
        self.size: PackSize = pack_size(config, self.pictures)
        self.vocab_size = getattr(getattr(model, "language_model", None), "vocab_size", 64)
        self.generator = torch.Generator().manual_seed(1 + rank)
        self.skipped: Mapping[str, int] = {}

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield make_pack(
                self.size, self.pictures, vocab_size=self.vocab_size, generator=self.generator
            )

    def preview(self) -> Iterator[Batch]:
        """Two packs that every rank sees alike."""
        generator = torch.Generator().manual_seed(0)
        for _ in range(2):
            yield make_pack(
                self.size, self.pictures, vocab_size=self.vocab_size, generator=generator
            )

    def rehearsal(self) -> list[Batch]:
        """None."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """Nothing of them has to be kept."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing of them was kept."""


class DeviceMemory:
    """What an accelerator's allocator counts, step by step.

    Args:
        device: whose.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.steps: list[dict[str, int]] = []

    @contextmanager
    def step(self) -> Iterator[None]:
        """Measure what runs inside."""
        torch.accelerator.synchronize(self.device)
        torch.accelerator.reset_peak_memory_stats(self.device)
        yield
        torch.accelerator.synchronize(self.device)
        self.steps.append(
            {
                "peak": int(torch.accelerator.max_memory_allocated(self.device)),
                "held": int(torch.accelerator.memory_allocated(self.device)),
                "reserved": int(torch.accelerator.max_memory_reserved(self.device)),
            }
        )

    def read(self) -> list[dict[str, int]]:
        """Of each step the peak, what was held behind it, and what the allocator had taken."""
        return self.steps


class HostMemory:
    """What torch's allocator of the CPU hands out, every block from the first of the process on.

    It hears of what its own thread gives back. Threads of exchanges give back what sharding
    exchanges, so for sharded runs the simulated NPU is asked, whose account is of all threads.
    """

    def __init__(self) -> None:
        self._profile = torch.autograd.profiler.profile(profile_memory=True, use_kineto=True)
        self._profile.__enter__()

    @contextmanager
    def step(self) -> Iterator[None]:
        """Measure what runs inside."""
        with torch.autograd.profiler.record_function(_STEP):
            yield

    def read(self) -> list[dict[str, int]]:
        """Of each step the peak, and what was held behind it."""
        self._profile.__exit__(None, None, None)
        events: Any = self._profile.kineto_results.events()
        steps = [
            (e.start_ns(), e.start_ns() + e.duration_ns()) for e in events if e.name() == _STEP
        ]
        changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == _CHANGE)
        found = [{"peak": 0, "held": 0} for _ in steps]
        total = 0
        for time_ns, change in changes:
            total += change
            for measured, (begin, end) in zip(found, steps, strict=True):
                if begin <= time_ns <= end:
                    measured["peak"] = max(measured["peak"], total)
                    measured["held"] = total
        return found


def build_bare_trainer(config: Config, device: torch.device) -> Trainer:
    """The product's trainer over packs without data, with nothing that only watches it."""
    parallel = build_part(config.parallel)
    mesh: Mesh = parallel.start(device)
    torch.manual_seed(config.seed)
    values = StartingValues(config)
    objective = build_objective(config, values, None)
    packs = Packs(config, objective.model, rank=mesh.data_rank)
    trainer: Trainer = build_part(
        config.train,
        placed=place_objective(objective, config, values, parallel, mesh),
        batches=packs,
        checkpoints=build_part(config.train.checkpoints, mesh=mesh, config=to_yaml(config)),
        recorder=build_part(config.train.recorder, config=to_yaml(config)),
        probes={},
        throughput=None,
        memory_fit=None,
        profile=None,
        thread_watch=None,
        seed=config.seed,
    )
    return trainer


def main() -> None:
    """Train and let every rank write what it found."""
    file, steps, *overrides = sys.argv[1:]
    config = load_config("training", overrides)
    tune_process(config.threads)
    device = pick_device(config.device)
    gauge = HostMemory() if device.type == "cpu" else DeviceMemory(device)
    trainer = build_bare_trainer(config, device)
    mesh = trainer.mesh
    found = train(trainer, gauge, int(steps), device)
    found |= {"rank": mesh.rank, "rss_gib": round(peak_rss_gib(), 3), "device": str(device)}
    Path(f"{file}.{mesh.rank}").write_text(json.dumps(found), encoding="utf-8")
    mesh.barrier()
    os._exit(0)


def train(trainer: Trainer, gauge: Any, steps: int, device: torch.device) -> dict[str, Any]:
    """Take updates as the product's loop does: two to warm up, then those that are measured."""
    trainer._begin("never")
    trainer.objective.train()
    seconds: list[float] = []
    for step in range(1, steps + _WARM_UP + 1):
        micro_batches = trainer.feed.next(step)
        trainer.mesh.barrier()
        begin = time.perf_counter()
        with gauge.step() if step > _WARM_UP else nullcontext():
            counts = trainer.mesh.sum(trainer.feed.count(micro_batches))
            trainer._backward(micro_batches, counts)
            norm = trainer.update.step(1.0)
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        seconds.append(time.perf_counter() - begin)
        trainer.observer.meter.end_step(step, norm)
    return {"memory": gauge.read(), "seconds": seconds[_WARM_UP:]}


if __name__ == "__main__":
    main()
