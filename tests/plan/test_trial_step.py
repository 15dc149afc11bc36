import pytest

from mllm_npu.plan import trial_step
from mllm_npu.plan.trial_model import PHASES, Size
from mllm_npu.plan.trial_step import take_steps

SMALL = Size(width=32, blocks=1, tokens=16, classes=50)


def test_a_step_and_its_kernels(fixed_clock):
    found = take_steps(SMALL, fixed_clock(), steps=3)["single"]
    assert {operation.phase for operation in found.operations} == set(PHASES)
    assert all(found.seconds[phase] > 0 for phase in PHASES)
    assert found.exchanges == ()
    assert found.parameters == 12


def test_seconds_are_medians_by_the_steady_clock(fixed_clock, monkeypatch):
    times = iter([9.0] * 4 + [1.0, 5.0, 2.0])
    monkeypatch.setattr(trial_step.Trial, "step", lambda self: dict.fromkeys(PHASES, next(times)))
    found = take_steps(SMALL, fixed_clock(0.5), steps=3)["single"]
    assert found.seconds == dict.fromkeys(PHASES, 1.0)


def test_a_time_that_is_none_is_refused(fixed_clock, monkeypatch):
    monkeypatch.setattr(trial_step.Trial, "step", lambda self: dict.fromkeys(PHASES, float("nan")))
    with pytest.raises(RuntimeError, match="nan"):
        take_steps(SMALL, fixed_clock(), steps=1)
