"""Stages of the digits experiment in miniature, trained on one device and on another."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from mllm_npu.cli import main
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import ask
from mllm_npu.train.trainer import Trainer

STAGES = ("vision", "mllm", "decoder")
STEPS = 8
GREEDY = GenerationOptions(max_new_tokens=12, image_steps=3, seed=1)
DRAWING = GenerationOptions(images="force", max_new_tokens=3, image_steps=3, seed=1)
QUESTIONS = [ask(text, []) for text in ("Which digit is this?", "Draw a seven.", "What is 2 + 3?")]


def settings(
    place: Path, run: str, stage: str, device: str, *more: str, steps: int = STEPS
) -> list[str]:
    """What is typed to train a stage on the data in ``place``."""
    return [
        *(f"experiment=digits/{stage}", f"world_dir={place / 'data'}", f"device={device}"),
        *(f"run_dir={place / run}", f"train.max_steps={steps}", "train.schedule.warmup_steps=2"),
        *("train.packs_per_step=1", "dataset.tokens_per_pack=512", "train.log_every=1"),
        *("train.recorder.progress=false", "tracker=[jsonl]", "threads=1", "preflight=false"),
        *("train.throughput.count_flops=false", "parallel.compute_dtype=float32", *more),
    ]


def train(place: Path, run: str, *others: str, steps: int = STEPS) -> Path:
    """Train as `settings` say, and give the folder of the run."""
    assert main(["train", *settings(place, run, *others, steps=steps)]) == 0
    return place / run


def losses(folder: Path) -> list[float]:
    """The loss of each step of a run."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def before(place: Path, stage: str) -> list[str]:
    """Where a stage begins: with what the stage before gave on the CPU."""
    number = STAGES.index(stage)
    return [f"initialise_from={place / f'cpu-{STAGES[number - 1]}' / 'model'}"] if number else []


def train_on_cpu(place: Path) -> dict[str, Path]:
    """The three stages on the CPU, each from the one before."""
    return {s: train(place, f"cpu-{s}", s, "cpu", *before(place, s)) for s in STAGES}


def train_whole_and_moved(place: Path, devices: Sequence[str]) -> tuple[list[float], list[float]]:
    """Losses of a run on the CPU, and of one whose checkpoint goes from device to device."""
    more = [*before(place, "mllm"), "train.checkpoint_every=3", "train.checkpoints.keep_last=9"]
    whole = train(place, "whole", "mllm", "cpu", *more, steps=9)
    for number, device in enumerate(devices, start=1):
        # The schedule belongs to the run, so the run is stopped instead of shortened.
        _stop_after(place, device, 3 * number, *more)
    return losses(whole), losses(place / "moved")


def _stop_after(place: Path, device: str, step: int, *more: str) -> None:
    after_step = Trainer._after_step

    def stop(trainer):
        after_step(trainer)
        if trainer.step == step and step < 9:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Trainer, "_after_step", stop)
        with contextlib.suppress(KeyboardInterrupt, AssertionError):
            train(place, "moved", "mllm", device, *more, steps=9)


@contextlib.contextmanager
def no_waits_in_steps(monkeypatch, module, *, after: int):
    """Refuse every wait of the host from waiting for data to the end of the update.

    Args:
        monkeypatch: pytest's own.
        module: torch's of the device.
        after: steps in which the host may wait.
    """
    look, backward = Trainer._after_step, Trainer._backward

    def begin(trainer, *arguments):
        module.set_sync_debug_mode("error" if trainer.step >= after else "default")
        backward(trainer, *arguments)

    def end(trainer):
        module.set_sync_debug_mode("default")
        look(trainer)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_backward", begin)
        patched.setattr(Trainer, "_after_step", end)
        yield
    module.set_sync_debug_mode("default")
