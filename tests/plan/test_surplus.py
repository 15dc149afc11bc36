import pytest

from mllm_npu.plan.surplus import Surplus, find_sharding, find_surplus, solve
from mllm_npu.plan.trial_model import PHASES
from mllm_npu.plan.trial_step import TrialStep


def trial(operations, *, exchanges=(), parameters=1, **seconds):
    return TrialStep(
        operations=operations,
        exchanges=exchanges,
        seconds={**dict.fromkeys(PHASES, 0.0), **seconds},
        parameters=parameters,
    )


def test_two_trials_tell_calls_from_bytes():
    rows = [[100, 1e6], [300, 5e7]]
    left = [100 * 2e-5 + 1e6 * 1e-10, 300 * 2e-5 + 5e7 * 1e-10]
    assert solve(rows, left) == (pytest.approx(2e-5), pytest.approx(1e-10))


def test_neither_is_below_zero():
    each, byte = solve([[100, 1e6], [300, 5e7]], [0.002, 0.001])
    assert byte == 0
    assert each > 0
    each, byte = solve([[100, 1e6], [300, 5e7]], [0.0, 1.0])
    assert each == 0
    assert byte > 0


def test_the_surplus_is_what_kernels_alone_do_not_explain(make_operation):
    few, many = (make_operation(bytes=1000, calls=calls) for calls in (10, 1000))
    large = make_operation(bytes=10**6, calls=10)
    trials = [
        trial([few], forward=10 * (1e-3 + 2e-4 + 1000 * 1e-9)),
        trial([many, large], forward=1010 * (1e-3 + 2e-4) + (10**6 + 10**7) * 1e-9),
    ]
    found = find_surplus(trials, lambda operation: 1e-3)
    assert found.each["forward"] == pytest.approx(2e-4)
    assert found.byte["forward"] == pytest.approx(1e-9)
    assert found.each["backward"] == found.byte["backward"] == 0


def test_steps_faster_than_their_kernels_alone_leave_nothing(make_operation):
    trials = [trial([make_operation(calls=calls)], forward=1e-3) for calls in (10, 20)]
    assert find_surplus(trials, lambda operation: 1.0).each["forward"] == 0


def test_sharding_is_what_exchanges_do_not_explain(make_operation, make_exchange):
    surplus = Surplus(each=dict.fromkeys(PHASES, 1e-3), byte=dict.fromkeys(PHASES, 0.0))
    times = {"all_gather": [(1, 0.01), (10**9, 0.01)], "all_reduce": [(1, 0.5), (2, 0.5)]}
    trials = []
    for calls, size in ((3, 10**3), (5, 10**6)):
        operation = make_operation(calls=7)
        gathered = make_exchange(bytes=size, calls=calls)
        back = make_exchange(bytes=size, calls=calls, phase="backward")
        norm = make_exchange(kind="all_reduce", bytes=1, axis="world", phase="optimizer")
        once = 0.01 + 2e-3 + size * 1e-9
        trials.append(
            trial(
                [operation],
                exchanges=[gathered, back, norm],
                parameters=4,
                forward=7 * (1e-4 + 1e-3) + calls * once,
                backward=calls * once,
                optimizer=0.5 + 4 * 3e-3,
            )
        )
    found = find_sharding(trials, lambda operation: 1e-4, surplus=surplus, times=times)
    assert found.each == pytest.approx(2e-3)
    assert found.byte == pytest.approx(1e-9)
    assert found.update == pytest.approx(3e-3)
