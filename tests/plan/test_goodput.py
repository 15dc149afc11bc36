import time

import numpy as np
import pytest

from mllm_npu.errors import ConfigError
from mllm_npu.plan.goodput import (
    Fleet,
    daly_interval,
    simulate,
    slowest_factors,
    useful_share,
    young_interval,
)


def fleet(**changes):
    values = {
        "ranks": 1000,
        "step_seconds": 5.0,
        "device_spread": 0.0,
        "step_spread": 0.0,
        "failure_seconds": 50_000 * 3600.0,
        "restart_seconds": 300.0,
        "write_seconds": 60.0,
        "block_seconds": 60.0,
    }
    return Fleet(**{**values, **changes})


def expected_goodput(run, interval):
    """Exact share for exponential failures: whole cycles before the next one, restart first."""
    mean = run.mean_between_failures
    cycle = interval + run.block_seconds
    cycles = 1 / np.expm1(cycle / mean)  # mean of the geometric number of whole cycles
    return np.exp(-run.restart_seconds / mean) * cycles * interval / mean


def test_goodput_is_that_of_the_closed_form():
    run = fleet()
    found = simulate(run, failures=200_000)
    exact = [expected_goodput(run, interval) for interval in found.intervals]
    assert found.goodput == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize("ranks", [1_000, 10_000])
def test_the_best_interval_is_that_of_daly(ranks):
    run = fleet(ranks=ranks)
    found = simulate(run, failures=200_000)
    at_daly = expected_goodput(run, found.daly)
    assert found.best_goodput == pytest.approx(at_daly, rel=0.01)
    assert found.daly / 2 < found.best_interval < found.daly * 2
    assert found.goodput[0] < found.best_goodput > found.goodput[-1]


def test_formulas():
    assert young_interval(50, 10_000) == pytest.approx(1000)
    assert daly_interval(50, 10_000) == pytest.approx(1000 * (1 + 0.05 / 3 + 0.0025 / 9) - 50)
    assert daly_interval(50, 20) == 20


def test_more_ranks_break_more_often_and_wait_longer():
    few = simulate(fleet(step_spread=0.02))
    many = simulate(fleet(ranks=10_000, step_spread=0.02))
    assert many.failures_per_day == pytest.approx(10 * few.failures_per_day)
    assert 1 < few.straggling < many.straggling
    assert many.best_goodput < few.best_goodput
    assert many.best_interval < few.best_interval


def test_the_slowest_of_many_is_what_theory_says():
    """The largest of 1000 standard normals has mean 3.2414."""
    factors = slowest_factors(fleet(step_spread=0.02), np.random.default_rng(0), 4000)
    assert np.log(factors).mean() / 0.02 == pytest.approx(3.2414, rel=0.01)


def test_a_device_that_is_slow_for_good_slows_every_step():
    factors = slowest_factors(fleet(device_spread=0.05), np.random.default_rng(0), 10)
    assert factors.min() == pytest.approx(factors.max())
    assert factors[0] > 1.1


def test_no_rank_is_slow_without_spread():
    assert simulate(fleet()).straggling == 1.0


def test_checkpoints_behind_the_training_keep_more():
    """But what is not on the storage yet is lost, and the next one waits for it."""
    behind = fleet(block_seconds=2.0)
    found, waiting = simulate(behind), simulate(fleet())
    assert found.best_goodput > waiting.best_goodput
    gaps = np.array([1000.0])
    # 1000 s less the restart and the 58 s behind: 642 s are four cycles of 152 s.
    assert useful_share(behind, gaps, np.array([150.0])) == pytest.approx(4 * 150 / 1000)
    # A cycle is never shorter than a checkpoint takes.
    assert useful_share(behind, gaps, np.array([10.0])) == pytest.approx(10 * 10 / 1000)


def test_the_configured_interval_is_simulated_itself():
    """Two seconds of training for each minute of writing keep a thirtieth."""
    run = fleet(step_seconds=1.0)
    found = simulate(run, checkpoint_every=2)
    assert found.intervals[0] == 2.0
    assert found.goodput[0] == pytest.approx(expected_goodput(run, 2.0), rel=0.05)
    assert found.goodput[0] < 0.04


def test_a_failure_while_restarting_keeps_nothing():
    assert useful_share(fleet(), np.array([200.0]), np.array([100.0])) == 0


def test_the_same_seed_gives_the_same():
    run = fleet(step_spread=0.02)
    assert simulate(run, seed=1) == simulate(run, seed=1)
    assert simulate(run, seed=1) != simulate(run, seed=2)


def test_ten_thousand_ranks_take_seconds():
    begin = time.process_time()
    done = []
    simulate(fleet(ranks=10_000, step_spread=0.02), progress=lambda *now: done.append(now))
    assert time.process_time() - begin < 10
    assert done[-1] == (2000, 2000)
    assert len(done) > 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"ranks": 0},
        {"step_seconds": 0.0},
        {"failure_seconds": -1.0},
        {"step_spread": -0.1},
        {"block_seconds": 61.0},
    ],
)
def test_numbers_no_run_has_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        fleet(**wrong)
