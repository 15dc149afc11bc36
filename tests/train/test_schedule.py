import pytest

from mllm_npu.errors import ConfigError
from mllm_npu.train.schedule import Constant, Cosine, Linear


@pytest.mark.parametrize("schedule", [Cosine(warmup_steps=4), Linear(warmup_steps=4)])
def test_rises_then_falls(schedule):
    factors = [schedule.factor(step, 40) for step in range(40)]
    assert factors[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert factors[4:] == sorted(factors[4:], reverse=True)
    assert factors[4] == pytest.approx(1.0)


@pytest.mark.parametrize("schedule", [Cosine(warmup_steps=2, floor=0.1), Linear(floor=0.1)])
def test_stays_at_the_floor_after_the_end(schedule):
    values = [schedule.factor(step, 100) for step in (100, 101, 5000)]
    assert values == pytest.approx([0.1, 0.1, 0.1])


def test_cosine_is_half_way_in_the_middle():
    assert Cosine(warmup_steps=10, floor=0.2).factor(60, 110) == pytest.approx(0.6)


def test_constant_stays_at_one():
    schedule = Constant(warmup_steps=2)
    assert [schedule.factor(step, 5) for step in (0, 1, 2, 9)] == [0.5, 1.0, 1.0, 1.0]
    assert Constant().factor(0, 5) == 1.0


def test_warm_up_longer_than_the_run_never_reaches_the_peak():
    assert Cosine(warmup_steps=50).factor(9, 10) == pytest.approx(0.2)


@pytest.mark.parametrize("arguments", [{"warmup_steps": -1}, {"floor": 1.5}])
def test_refuses_what_makes_no_sense(arguments):
    with pytest.raises(ConfigError, match="floor"):
        Cosine(**arguments)
