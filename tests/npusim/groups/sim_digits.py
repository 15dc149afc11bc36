"""On the device training, checkpoints and answers are those of the CPU, without a wait."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch_npu
from digits_stages import (
    DRAWING,
    GREEDY,
    QUESTIONS,
    STAGES,
    before,
    losses,
    no_waits_in_steps,
    train,
    train_on_cpu,
    train_whole_and_moved,
)
from PIL import Image

from mllm_npu.cli import main
from mllm_npu.data.worlds.digits import make_digits
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.model_folder import find_model_folder, load_engine
from mllm_npu.ops.ways import calls
from mllm_npu.processing.conversation import ask

FUSED = {"npu_fusion_attention", "npu_rms_norm", "npu_rotary_mul", "npu_swiglu"}


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    make_digits(folder / "data", scale=0.05)
    return folder


@pytest.fixture(scope="session")
def on_cpu(place: Path) -> dict[str, Path]:
    """The three stages on the CPU."""
    return train_on_cpu(place)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_gives_the_losses_of_the_cpu(place, on_cpu, stage):
    torch_npu.simulation.stats(reset=True)
    start = before(place, stage)
    found = losses(train(place, f"npu-{stage}", stage, "npu", *start))
    assert found == pytest.approx(losses(on_cpu[stage]), rel=1e-5)
    done = torch_npu.simulation.stats()
    assert done.fallbacks == done.float64 == {}
    wanted = FUSED if stage == "mllm" else {"npu_fusion_attention"}
    assert wanted <= {name.removeprefix("npu::") for name in done.operators}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_in_bfloat16_gives_the_losses_of_the_cpu_in_bfloat16(place, on_cpu, stage):
    start = before(place, stage)
    narrow = "parallel.compute_dtype=bfloat16"
    theirs = losses(train(place, f"cpu-narrow-{stage}", stage, "cpu", *start, narrow))
    ours = losses(
        train(place, f"npu-narrow-{stage}", stage, "npu", *start, "parallel.compute_dtype=auto")
    )
    assert ours == pytest.approx(theirs, rel=1e-2)
    assert ours != pytest.approx(losses(on_cpu[stage]), rel=1e-6)


@pytest.mark.parametrize("stage", STAGES)
def test_no_step_of_training_makes_the_host_wait(place, on_cpu, stage, monkeypatch):
    start = before(place, stage)
    with no_waits_in_steps(monkeypatch, torch.npu, after=1):
        train(place, f"free-{stage}", stage, "npu", *start, "train.log_every=4")


def test_an_encoder_that_is_trained_as_well_makes_no_wait(place, on_cpu, monkeypatch):
    more = ["objective.feature_cache=null", "objective.trainable=['*','!image_decoder.*']"]
    with no_waits_in_steps(monkeypatch, torch.npu, after=1):
        train(place, "free-all", "mllm", "npu", *before(place, "mllm"), *more, "train.log_every=4")


def test_a_checkpoint_goes_from_the_device_to_the_cpu_and_back(place, on_cpu):
    whole, moved = train_whole_and_moved(place, ["npu", "cpu", "npu"])
    assert moved == pytest.approx(whole, rel=1e-5)


@pytest.fixture(scope="session")
def engines(on_cpu):
    folder = find_model_folder(on_cpu["decoder"])
    return {device: load_engine(folder, device=device)[0] for device in ("cpu", "npu")}


def test_replies_and_pictures_are_those_of_the_cpu(engines):
    theirs, ours = (engines[device].reply_many(QUESTIONS, GREEDY) for device in ("cpu", "npu"))
    assert [reply.text for reply in ours] == [reply.text for reply in theirs]
    pairs = [engines[device].reply(QUESTIONS[1], DRAWING) for device in ("cpu", "npu")]
    one, other = (np.asarray(reply.pictures[0], dtype=int) for reply in pairs)
    assert np.abs(one - other).max() <= 1


def test_texts_are_weighed_as_on_the_cpu(engines):
    """Solved examples in common, a picture with choices, and a loner; two waits a batch."""
    shots = "Which digit is this? seven. What is the sum? nine. " * 4
    picture = Image.new("RGB", (16, 16), "white")
    questions = [
        *((ask(f"{shots}{word}"), ("one", "two three")) for word in ("Draw", "Read", "Say")),
        (ask("Which digit is this?", [picture]), ("seven", "eight", "nine")),
        (ask("Draw a seven."), ("seven",)),
    ]
    truth = dict(engines["cpu"].weigh(questions))
    dict(engines["npu"].weigh(questions))
    torch_npu.simulation.stats(reset=True)
    ours = dict(engines["npu"].weigh(questions))
    done = torch_npu.simulation.stats()
    assert done.fallbacks == done.float64 == {}
    assert sum(done.syncs.values()) <= 2 * len(questions), done.sync_stacks
    for number in range(len(questions)):
        found, expected = ([each.logprob for each in one[number]] for one in (ours, truth))
        assert found == pytest.approx(expected, rel=1e-4)


def test_a_chosen_token_costs_one_wait(engines):
    options = GenerationOptions(max_new_tokens=16, images="forbid", seed=1)
    engine, question = engines["npu"], QUESTIONS[0]
    engine.reply(question, options)
    torch_npu.simulation.stats(reset=True)
    reply = engine.reply(question, options)
    done = torch_npu.simulation.stats()
    # The first one more than once: the question has to be brought to the device.
    assert sum(done.syncs.values()) <= reply.num_new_tokens + 1, done.sync_stacks
    assert done.fallbacks == {}


def test_the_ways_of_the_device_are_the_ones_that_are_used(place, on_cpu):
    earlier = calls()
    train(place, "ways", "mllm", "npu", *before(place, "mllm"), steps=2)
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
    folder = train(place, run, "mllm", "npu", *before(place, "mllm"), *more, steps=4)
    assert len(losses(folder)) == 4
    done = torch_npu.simulation.stats()
    assert done.fallbacks == done.float64 == {}


def test_a_pack_that_does_not_fit_the_device_is_told_before_the_run(place, on_cpu, capsys):
    used = torch.npu.memory_allocated()
    torch_npu.simulation.set_memory_limit(used + (40 << 20))
    typed = [
        *("experiment=digits/mllm", f"world_dir={place / 'data'}", "device=npu", "threads=1"),
        *(f"run_dir={place / 'large'}", *before(place, "mllm"), "dataset.tokens_per_pack=2048"),
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
