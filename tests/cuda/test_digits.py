"""Stages of the digits experiment on the device: losses, checkpoints and answers of the CPU."""

import contextlib
import warnings

import numpy as np
import pytest
import torch
from digits_stages import (
    DRAWING,
    GREEDY,
    QUESTIONS,
    STAGES,
    before,
    losses,
    no_waits_in_steps,
    settings,
    train,
    train_whole_and_moved,
)

from mllm_npu.inference.events import collect_reply
from mllm_npu.inference.live_engine import LiveEngine
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.model_folder import find_model_folder, load_engine, load_model


def assert_near(found, wanted, *, first, all_of_them):
    """An update divides a gradient by its own size, so steps drift apart sooner than they round."""
    assert found[0] == pytest.approx(wanted[0], rel=first)
    assert found == pytest.approx(wanted, rel=all_of_them)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_gives_the_losses_of_the_cpu(place, on_cpu, device, stage):
    found = losses(train(place, f"ours-{stage}", stage, device, *before(place, stage)))
    assert_near(found, losses(on_cpu[stage]), first=1e-5, all_of_them=1e-3)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_in_bfloat16_stays_near_the_losses_of_float32(place, on_cpu, device, stage):
    more = [*before(place, stage), "parallel.compute_dtype=bfloat16"]
    found = losses(train(place, f"narrow-{stage}", stage, device, *more))
    assert_near(found, losses(on_cpu[stage]), first=1e-2, all_of_them=5e-2)
    assert found != pytest.approx(losses(on_cpu[stage]), rel=1e-6)


@pytest.mark.parametrize("stage", STAGES)
def test_no_step_of_training_makes_the_host_wait(place, on_cpu, device, stage, monkeypatch):
    if device == "cpu":
        pytest.skip("a CPU does not wait for itself")
    with no_waits_in_steps(monkeypatch, torch.get_device_module(device), after=1):
        train(place, f"free-{stage}", stage, device, *before(place, stage), "train.log_every=4")


def test_a_checkpoint_goes_from_the_device_to_the_cpu_and_back(place, on_cpu, device):
    whole, moved = train_whole_and_moved(place, [device, "cpu", device])
    assert_near(moved, whole, first=1e-5, all_of_them=1e-3)


@pytest.mark.parametrize(
    "more",
    [
        ["parallel.recompute=full", "train.ema_decay=0.9"],
        ["profile=true", "train.profile.active=1", "train.throughput.count_flops=true"],
    ],
    ids=["recomputed", "profiled"],
)
def test_what_is_put_around_a_step_changes_no_loss(place, on_cpu, device, more, request):
    run = f"around-{request.node.callspec.id}"
    found = losses(train(place, run, "mllm", device, *before(place, "mllm"), *more, steps=4))
    assert_near(found, losses(on_cpu["mllm"])[:4], first=1e-5, all_of_them=1e-3)


def test_one_rank_that_shards_gives_the_losses_of_none(place, on_cpu, device, command):
    more = [*before(place, "mllm"), "parallel=fsdp2"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"]
    typed = settings(place, "sharded", "mllm", device, *more)
    command(*launcher, "-m", "mllm_npu.cli", "train", *typed)
    found = losses(place / "sharded")
    assert_near(found, losses(on_cpu["mllm"]), first=1e-5, all_of_them=1e-3)


@pytest.fixture(scope="module")
def engines(on_cpu, device):
    folder = find_model_folder(on_cpu["decoder"])
    return [load_engine(folder, device=where)[0] for where in ("cpu", device)]


def test_replies_and_pictures_are_those_of_the_cpu(engines):
    theirs, ours = (engine.reply_many(QUESTIONS, GREEDY) for engine in engines)
    assert [reply.text for reply in ours] == [reply.text for reply in theirs]
    pictures = [engine.reply(QUESTIONS[1], DRAWING).pictures[0] for engine in engines]
    one, other = (np.asarray(picture, dtype=int) for picture in pictures)
    assert np.abs(one - other).max() <= 2


def test_requests_beside_each_other_are_answered_as_each_alone(on_cpu, device, engines):
    model, processor, _ = load_model(find_model_folder(on_cpu["decoder"]))
    asked = [*((question, GREEDY) for question in 2 * QUESTIONS), (QUESTIONS[1], DRAWING)]
    with LiveEngine(model=model, processor=processor, device=device) as engine:
        tickets = [engine.submit(*one) for one in asked]
        found = [collect_reply(iter(ticket)) for ticket in tickets]
    for reply, one in zip(found, asked, strict=True):
        alone = engines[1].reply(*one)
        assert reply.text == alone.text
        assert len(reply.pictures) == len(alone.pictures)
        for ours, theirs in zip(reply.pictures, alone.pictures, strict=True):
            difference = np.asarray(ours, dtype=int) - np.asarray(theirs, dtype=int)
            assert np.abs(difference).max() <= 2


def test_a_chosen_token_costs_one_wait(engines, device):
    if device == "cpu":
        pytest.skip("a CPU does not wait for itself")
    options = GenerationOptions(max_new_tokens=16, images="forbid", seed=1)
    engines[1].reply(QUESTIONS[0], options)
    module = torch.get_device_module(device)
    with warnings.catch_warnings(record=True) as told, contextlib.ExitStack() as stack:
        warnings.simplefilter("always")
        module.set_sync_debug_mode("warn")
        stack.callback(module.set_sync_debug_mode, "default")
        reply = engines[1].reply(QUESTIONS[0], options)
    waits = [str(one.message) for one in told if "synchronizing" in str(one.message)]
    assert len(waits) <= reply.num_new_tokens + 1, (len(waits), reply.num_new_tokens)
