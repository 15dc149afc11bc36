"""A device that works is told from one that is slow, wrong or not finite."""

import math
from dataclasses import replace

import pytest
import torch

from mllm_npu.device.doctor import burn_in as module
from mllm_npu.device.doctor.burn_in import BurnIn, burn_in, judge
from mllm_npu.device.doctor.trial import STEPS_PER_ROUND, Size
from mllm_npu.errors import ConfigError

CPU = torch.device("cpu")
SMALL = Size(width=32, blocks=1, heads=2, sequences=2, tokens=16, classes=24)
WELL = BurnIn(
    device="npu:0 Ascend910B3",
    seconds=60.0,
    round_seconds=(0.1,) * 600,
    losses=(9.0, 8.5, 8.1, 7.9),
    deviating=(),
    largest_difference=0.0,
    guess=9.0,
    flops=1.2e14,
    peak=3e14,
)


def test_one_second_on_this_machine_is_fast_steady_and_exact():
    moved = []
    result = burn_in(CPU, 1.0, progress=lambda done, total: moved.append((done, total)))
    assert 1.0 <= result.seconds < 20
    assert result.deviating == ()
    assert result.steps_per_second > 0
    assert result.flops > 0
    assert result.peak is not None
    assert moved[-1] == (1.0, 1.0)
    assert [done for done, _ in moved] == sorted(done for done, _ in moved)
    check = judge(result)
    assert check.state in ("good", "notice")  # other work may make its last third slow
    assert check.figures["deviating_rounds"] == 0
    assert 0 < check.figures["peak_share"] < 1.5


def test_a_device_that_now_and_then_computes_something_else_is_bad(monkeypatch):
    play, count = module.Trial.play_round, iter(range(1000))

    def flip(trial):
        losses = play(trial)
        return (*losses[:-1], losses[-1] + 0.25) if next(count) == 2 else losses

    monkeypatch.setattr(module.Trial, "play_round", flip)
    result = burn_in(CPU, 0.2, size=SMALL)
    assert result.deviating == (2,)
    assert result.largest_difference == 0.25
    check = judge(result)
    assert check.state == "bad"
    assert f"1 of {len(result.round_seconds)} rounds gave other losses" in check.found


def test_losses_that_are_not_finite_are_bad(monkeypatch):
    monkeypatch.setattr(module.Trial, "play_round", lambda trial: (math.nan,) * STEPS_PER_ROUND)
    check = judge(burn_in(CPU, 0.01, size=SMALL))
    assert check.state == "bad"
    assert "not finite" in check.found
    assert all(math.isfinite(value) for value in check.figures.values())


@pytest.mark.parametrize(
    "losses", [(0.0,) * 4, (9.0, 9.1, 9.2, 9.3), (9.0, 9.0, 9.0, 9.0), (80.0, 70.0, 60.0, 50.0)]
)
def test_a_device_whose_kernels_do_nothing_is_bad(losses):
    check = judge(replace(WELL, losses=losses))
    assert check.state == "bad"
    assert "no losses of such steps" in check.found


def test_at_least_one_round_is_compared():
    assert len(burn_in(CPU, 1e-9, size=SMALL).round_seconds) == 1


@pytest.mark.parametrize("seconds", [0, -5])
def test_no_time_is_refused(seconds):
    with pytest.raises(ConfigError, match="positive"):
        burn_in(CPU, seconds)


def test_a_device_that_is_well_is_good():
    check = judge(WELL)
    assert (check.state, check.advice) == ("good", "")
    assert "40% of the peak" in check.found
    assert "40.0 steps/s" in check.found
    assert check.figures["peak_share"] == pytest.approx(0.4)


def test_a_device_without_a_known_peak_has_no_share():
    check = judge(replace(WELL, peak=None))
    assert "peak" not in check.found
    assert "peak_share" not in check.figures


def test_a_device_that_gets_slower_is_noticed():
    rounds = (0.1,) * 200 + (0.11,) * 200 + (0.13,) * 200
    result = replace(WELL, round_seconds=rounds)
    assert result.slowdown == pytest.approx(1 - 0.1 / 0.13)
    check = judge(result)
    assert check.state == "notice"
    assert "the last third was 23% slower than the first" in check.found
    assert "temperature" in check.advice
    assert judge(replace(WELL, round_seconds=rounds[::-1])).state == "good"
