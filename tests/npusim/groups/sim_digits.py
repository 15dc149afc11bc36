"""On the device training, checkpoints and answers are those of the CPU, without a wait."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_npu

from mllm_npu.cli import main
from mllm_npu.data.worlds.digits import make_digits
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.model_folder import find_model_folder, load_engine
from mllm_npu.ops.ways import calls
from mllm_npu.processing.conversation import ask
from mllm_npu.train.trainer import Trainer

STAGES = ("vision", "mllm", "decoder")
STEPS = 8
FUSED = {"npu_fusion_attention", "npu_rms_norm", "npu_rotary_mul", "npu_swiglu"}


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    make_digits(folder / "data", scale=0.05)
    return folder


def train(place: Path, run: str, stage: str, device: str, *more: str, steps: int = STEPS) -> Path:
    typed = [
        *(f"experiment=digits/{stage}", f"world_dir={place / 'data'}", f"device={device}"),
        *(f"run_dir={place / run}", f"train.max_steps={steps}", "train.schedule.warmup_steps=2"),
        *("train.packs_per_step=1", "dataset.tokens_per_pack=512", "train.log_every=1"),
        *("train.recorder.progress=false", "tracker=[jsonl]", "threads=1", "preflight=false"),
        *("train.throughput.count_flops=false", "parallel.compute_dtype=float32", *more),
    ]
    assert main(["train", *typed]) == 0
    return place / run


def losses(folder: Path) -> list[float]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def before(place: Path, stage: str) -> str:
    """Where a stage begins: with what the stage before gave on the CPU."""
    number = STAGES.index(stage)
    return f"initialise_from={place / f'cpu-{STAGES[number - 1]}' / 'model'}" if number else ""


@pytest.fixture(scope="session")
def on_cpu(place: Path) -> dict[str, Path]:
    """The three stages on the CPU."""
    found = {}
    for stage in STAGES:
        start = [text for text in [before(place, stage)] if text]
        found[stage] = train(place, f"cpu-{stage}", stage, "cpu", *start)
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_gives_the_losses_of_the_cpu(place, on_cpu, stage):
    torch_npu.simulation.stats(reset=True)
    start = [text for text in [before(place, stage)] if text]
    found = losses(train(place, f"npu-{stage}", stage, "npu", *start))
    assert found == pytest.approx(losses(on_cpu[stage]), rel=1e-5)
    done = torch_npu.simulation.stats()
    assert done.fallbacks == done.float64 == {}
    wanted = FUSED if stage == "mllm" else {"npu_fusion_attention"}
    assert wanted <= {name.removeprefix("npu::") for name in done.operators}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_in_bfloat16_gives_the_losses_of_the_cpu_in_bfloat16(place, on_cpu, stage):
    start = [text for text in [before(place, stage)] if text]
    narrow = "parallel.compute_dtype=bfloat16"
    theirs = losses(train(place, f"cpu-narrow-{stage}", stage, "cpu", *start, narrow))
    ours = losses(
        train(place, f"npu-narrow-{stage}", stage, "npu", *start, "parallel.compute_dtype=auto")
    )
    assert ours == pytest.approx(theirs, rel=1e-2)
    assert ours != pytest.approx(losses(on_cpu[stage]), rel=1e-6)


@contextlib.contextmanager
def no_waits_in_steps(monkeypatch, *, after: int):
    """Refuse every wait of the host from waiting for data to the end of the update."""
    look, backward = Trainer._after_step, Trainer._backward

    def begin(trainer, *arguments):
        torch.npu.set_sync_debug_mode("error" if trainer.step >= after else "default")
        backward(trainer, *arguments)

    def end(trainer):
        torch.npu.set_sync_debug_mode("default")
        look(trainer)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_backward", begin)
        patched.setattr(Trainer, "_after_step", end)
        yield
    torch.npu.set_sync_debug_mode("default")


@pytest.mark.parametrize("stage", STAGES)
def test_no_step_of_training_makes_the_host_wait(place, on_cpu, stage, monkeypatch):
    start = [text for text in [before(place, stage)] if text]
    with no_waits_in_steps(monkeypatch, after=1):
        train(place, f"free-{stage}", stage, "npu", *start, "train.log_every=4")


def test_an_encoder_that_is_trained_as_well_makes_no_wait(place, on_cpu, monkeypatch):
    more = ["objective.feature_cache=null", "objective.trainable=['*','!image_decoder.*']"]
    with no_waits_in_steps(monkeypatch, after=1):
        train(place, "free-all", "mllm", "npu", before(place, "mllm"), *more, "train.log_every=4")


def test_a_checkpoint_goes_from_the_device_to_the_cpu_and_back(place, on_cpu):
    start = before(place, "mllm")
    halves = ["train.checkpoint_every=3", "train.checkpoints.keep_last=9"]
    whole = losses(train(place, "whole", "mllm", "cpu", start, *halves, steps=9))
    for number, device in enumerate(["npu", "cpu", "npu"], start=1):
        # The schedule belongs to the run, so the run is stopped instead of shortened.
        moved = stop_after(place, device, 3 * number, start, *halves)
    assert losses(moved) == pytest.approx(whole, rel=1e-5)


def stop_after(place: Path, device: str, step: int, *more: str) -> Path:
    after_step = Trainer._after_step

    def stop(trainer):
        after_step(trainer)
        if trainer.step == step and step < 9:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Trainer, "_after_step", stop)
        with contextlib.suppress(KeyboardInterrupt, AssertionError):
            train(place, "moved", "mllm", device, *more, steps=9)
    return place / "moved"


@pytest.fixture(scope="session")
def engines(on_cpu):
    folder = find_model_folder(on_cpu["decoder"])
    return {device: load_engine(folder, device=device)[0] for device in ("cpu", "npu")}


def test_replies_and_pictures_are_those_of_the_cpu(engines):
    options = GenerationOptions(max_new_tokens=12, image_steps=3, seed=1)
    questions = [
        ask("Which digit is this?", []),
        ask("Draw a seven.", []),
        ask("What is 2 + 3?", []),
    ]
    theirs, ours = (engines[device].reply_many(questions, options) for device in ("cpu", "npu"))
    assert [reply.text for reply in ours] == [reply.text for reply in theirs]
    drawn = {"images": "force", "max_new_tokens": 3, "image_steps": 3, "seed": 1}
    forced = GenerationOptions(**drawn)
    pairs = [engines[device].reply(questions[1], forced) for device in ("cpu", "npu")]
    one, other = (np.asarray(reply.pictures[0], dtype=int) for reply in pairs)
    assert np.abs(one - other).max() <= 1


def test_a_chosen_token_costs_one_wait(engines):
    options = GenerationOptions(max_new_tokens=16, images="forbid", seed=1)
    engine, question = engines["npu"], ask("Which digit is this?", [])
    engine.reply(question, options)
    torch_npu.simulation.stats(reset=True)
    reply = engine.reply(question, options)
    done = torch_npu.simulation.stats()
    # The first one more than once: the question has to be brought to the device.
    assert sum(done.syncs.values()) <= reply.num_new_tokens + 1, done.sync_stacks
    assert done.fallbacks == {}


def test_the_ways_of_the_device_are_the_ones_that_are_used(place, on_cpu):
    earlier = calls()
    train(place, "ways", "mllm", "npu", before(place, "mllm"), steps=2)
    made = calls() - earlier
    assert {
        way for (op, way) in made if op in ("packed_attention", "rms_norm", "rotate", "swiglu")
    } == {"npu"}


@pytest.mark.parametrize(
    "more",
    [
        ["parallel.recompute=selective"],
        ["parallel.recompute=full", "train.ema_decay=0.9"],
        ["train.packs_per_step=2", "train.faults.spike=skip"],
        ["validation=digits", "validation.loss.every=2", "validation.tasks.every=2",
         "validation.tasks.limit=2", "generation.image_steps=2"],
        ["profile=true", "train.profile.active=1"],
    ],
)  # fmt: skip
def test_what_can_be_put_around_a_step_runs_on_the_device(place, on_cpu, more, request):
    torch_npu.simulation.stats(reset=True)
    run = f"around-{request.node.callspec.indices['more']}"
    folder = train(place, run, "mllm", "npu", before(place, "mllm"), *more, steps=4)
    assert len(losses(folder)) == 4
    done = torch_npu.simulation.stats()
    assert done.fallbacks == done.float64 == {}


def test_a_pack_that_does_not_fit_the_device_is_told_before_the_run(place, on_cpu, capsys):
    used = torch.npu.memory_allocated()
    torch_npu.simulation.set_memory_limit(used + (40 << 20))
    typed = [
        *("experiment=digits/mllm", f"world_dir={place / 'data'}", "device=npu", "threads=1"),
        *(f"run_dir={place / 'large'}", before(place, "mllm"), "dataset.tokens_per_pack=2048"),
        *("train.packs_per_step=1", "train.max_steps=2", "preflight=true"),
    ]
    try:
        assert main(["train", *typed]) == 2
    finally:
        torch_npu.simulation.set_memory_limit(None)
    *_, told = capsys.readouterr().err.strip().split("\n")
    assert told.startswith("TrainingError: A pack of ")
    assert "does not fit" in told
    assert "npu" in told
    assert not (place / "large").exists()
