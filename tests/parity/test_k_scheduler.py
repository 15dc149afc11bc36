"""The learning rate against the original's, up to the end of training."""

import ast

import pytest

from mllm_npu.train.schedule import Cosine

GOLDEN = "k_scheduler"


def compare(deviation, factors, schedule, warmup, total, what):
    """Ours spends no update on a rate of 0: in the warm-up it is one step ahead, then the same."""
    for step, factor in factors:
        if warmup <= step <= total:
            deviation(GOLDEN, schedule.factor(step, total), factor, atol=1e-12, what=what)
        elif 0 < step < warmup:
            deviation(GOLDEN, schedule.factor(step - 1, total), factor, atol=1e-12, what=what)


def test_cosine_curves(golden, deviation):
    """Behind the last step the original climbs again (a defect); ours stays at its floor."""
    _, meta = golden(GOLDEN)
    curves = {key: value for key, value in meta.items() if key.startswith("(")}
    assert curves
    for key, curve in curves.items():
        _, warmup, total, floor, _ = ast.literal_eval(key)
        schedule = Cosine(warmup_steps=warmup, floor=floor)
        factors = [(step, lr / curve["lr"]) for step, lr in enumerate(curve["curve"])]
        if warmup < total:  # else the original jumps between floor and peak
            compare(deviation, factors, schedule, warmup, total, key)
        after = [schedule.factor(step, total) for step in range(total + 1, total + 30)]
        assert after == pytest.approx([floor] * 29)


def test_published_settings(golden, deviation):
    _, meta = golden(GOLDEN)
    recorded = meta["published_lambda(warmup500,T100000,min0.05)"]
    factors = [(int(step), factor) for step, factor in recorded.items()]
    compare(deviation, factors, Cosine(warmup_steps=500, floor=0.05), 500, 100_000, "published")


def test_accumulation_does_not_shorten_the_schedule(golden):
    """The original steps it per micro-batch: with two of them the rate bounces at half-time."""
    _, meta = golden(GOLDEN)
    recorded = meta["accelerate_ga2_T10_lr_per_optimizer_step"]["lr"]
    assert recorded[4] < recorded[-1]
    ours = [Cosine(warmup_steps=0, floor=0.05).factor(step, 10) for step in range(11)]
    assert ours == sorted(ours, reverse=True)
