import json
import math
import statistics

import pytest
import torch

from mllm_npu.errors import ConfigError, TrainingError
from mllm_npu.train.faults import FaultPolicy, StepOutcome, tell_samples

NAN, INF = float("nan"), float("inf")


@pytest.fixture
def outcome(make_batch):
    def make(step=1, *, loss=2.0, norm=1.0, kinds="rd"):
        return StepOutcome(
            step=step,
            loss=loss,
            grad_norm=norm,
            batches=(make_batch(kinds, seed=step),),
            own_losses=(loss,),
        )

    return make


@pytest.fixture
def experienced(outcome):
    """A policy that has seen 20 norms around 1."""

    def make(**settings):
        policy = FaultPolicy(spike="skip", **settings)
        assert policy.limit == math.inf
        policy.judge([outcome(step, norm=1.0 + step / 100) for step in range(19)])
        assert policy.limit == math.inf
        policy.judge([outcome(20, norm=1.0)])
        return policy

    return make


@pytest.mark.parametrize(("loss", "norm"), [(NAN, 1.0), (INF, 1.0), (2.0, NAN), (2.0, INF)])
def test_what_is_no_number_is_found_counted_and_told(outcome, loss, norm):
    policy = FaultPolicy()
    (fault,) = policy.judge([outcome(6), outcome(7, loss=loss, norm=norm, kinds="rdb")])
    assert (fault.kind, fault.action, fault.outcome.step) == ("not_finite", "skip", 7)
    assert policy.newest == [fault]
    assert policy.counts == {"not_finite": 1, "spike": 0, "rolled_back": 0, "lowered": 0}
    assert str(fault) == (
        f"step 7: loss {loss}, gradient norm {norm}. "
        "Its samples come from readings, drawings: 7-0, 7-1."
    )


def test_good_updates_are_no_fault(outcome):
    policy = FaultPolicy(spike="stop")
    assert policy.judge([outcome(step, norm=10.0**step) for step in range(10)]) == []
    assert not any(policy.counts.values())


def test_a_spike_is_so_many_times_the_median_once_there_is_a_history(experienced, outcome):
    policy = experienced(spike_factor=4.0)
    expected = 4.0 * statistics.median([*(1.0 + step / 100 for step in range(19)), 1.0])
    assert policy.limit == pytest.approx(expected)
    assert policy.judge([outcome(21, norm=0.99 * expected)]) == []
    limit = policy.limit
    (fault,) = policy.judge([outcome(22, norm=1.01 * limit)])
    assert (fault.kind, fault.limit) == ("spike", limit)
    assert f"gradient norm {1.01 * limit:.4g} above {limit:.4g}" in str(fault)


def test_a_spike_does_not_move_the_median_and_the_window_forgets(experienced, outcome):
    policy = experienced(spike_factor=4.0, window=20)
    before = policy.limit
    policy.judge([outcome(21, norm=1e6)])
    assert policy.limit == before
    policy.judge([outcome(step, norm=2.0) for step in range(22, 42)])
    assert policy.limit == 8.0


def test_without_a_spike_action_nothing_is_one(outcome):
    policy = FaultPolicy()
    policy.judge([outcome(step) for step in range(30)])
    assert policy.limit == math.inf
    assert policy.judge([outcome(31, norm=1e30)]) == []


def test_what_is_blocked_on_the_device_is_what_is_judged_a_fault(experienced):
    policy = experienced(spike_factor=4.0)
    norms = [0.0, 1.0, policy.limit * 0.999, policy.limit * 1.001, 1e30, INF, NAN]
    blocked = [policy.blocks(torch.tensor(norm)) for norm in norms]
    assert [int(flag) for flag in blocked] == [0, 0, 0, 1, 1, 1, 1]
    assert {flag.dtype for flag in blocked} == {torch.float32}
    assert {flag.ndim for flag in blocked} == {0}
    assert FaultPolicy().blocks(torch.tensor(1e30)) == 0
    assert FaultPolicy().blocks(torch.tensor(NAN)) == 1


def test_a_lower_rate_stays_and_falls_once_per_look(outcome):
    policy = FaultPolicy(not_finite="lower", lower_factor=0.25)
    policy.judge([outcome(1, norm=NAN), outcome(2, norm=NAN), outcome(3)])
    assert (policy.lr_factor, policy.counts["lowered"]) == (0.25, 1)
    policy.judge([outcome(4)])
    policy.judge([outcome(5, norm=NAN)])
    assert (policy.lr_factor, policy.counts["lowered"]) == (0.0625, 2)
    assert policy.counts["not_finite"] == 3


def test_a_policy_that_stops_says_where_and_what_to_do(outcome):
    policy = FaultPolicy(not_finite="stop")
    with pytest.raises(TrainingError, match=r"step 6: loss nan.*drawings: 6-0, 6-1.*train\.faults"):
        policy.judge([outcome(5), outcome(6, loss=NAN, norm=NAN), outcome(7)])
    assert [fault.outcome.step for fault in policy.newest] == [6]
    assert policy.counts["not_finite"] == 1


def test_many_in_a_row_stop_whatever_the_action(outcome):
    policy = FaultPolicy(most_in_row=3)
    policy.judge([outcome(1, norm=NAN), outcome(2, norm=NAN), outcome(3)])
    policy.judge([outcome(4, norm=NAN), outcome(5, norm=NAN)])
    with pytest.raises(TrainingError, match=r"step 6.*the 3th bad update in a row"):
        policy.judge([outcome(6, norm=NAN)])


def test_one_rollback_too_many_stops(outcome):
    policy = FaultPolicy(not_finite="roll_back", most_rollbacks=2, most_in_row=2)
    for step in (1, 2):
        (fault,) = policy.judge([outcome(step, norm=NAN)])
        policy.roll_back(fault)
    assert policy.counts["rolled_back"] == 2
    (fault,) = policy.judge([outcome(3, norm=NAN)])
    with pytest.raises(TrainingError, match=r"2 times the last checkpoint came back.*step 3"):
        policy.roll_back(fault)


def test_it_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(experienced, outcome):
    policy = experienced(not_finite="lower", most_in_row=3)
    policy.judge([outcome(21, norm=NAN), outcome(22, norm=NAN)])
    other = FaultPolicy(spike="skip", not_finite="lower", most_in_row=3)
    other.load_state_dict(json.loads(json.dumps(policy.state_dict())))
    assert other.limit == policy.limit < math.inf
    assert other.counts == policy.counts
    assert other.lr_factor == 0.5
    with pytest.raises(TrainingError, match="3th bad update in a row"):
        other.judge([outcome(23, norm=NAN)])


@pytest.mark.parametrize(
    "settings",
    [
        {"not_finite": None},
        {"not_finite": "ignore"},
        {"spike": "ignore"},
        {"spike_factor": 1.0},
        {"window": 0},
        {"lower_factor": 0.0},
        {"lower_factor": 1.0},
        {"most_in_row": 0},
        {"most_rollbacks": -1},
        {"most_dumps": -1},
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(settings):
    (name,) = settings
    with pytest.raises(ConfigError, match=rf"train\.faults.*{name}='?{settings[name]}"):
        FaultPolicy(**settings)


def test_a_long_list_of_samples_is_cut(make_batch):
    told = tell_samples([make_batch("r" * 7, seed=1), make_batch("rrdb", seed=2)])
    assert told.startswith("Its samples come from readings, drawings: 1-0, 1-1")
    assert told.endswith("2-0 and 2 more.")
