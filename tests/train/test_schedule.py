from itertools import pairwise

import pytest

from mllm_npu.build import build_part
from mllm_npu.config import load_config
from mllm_npu.errors import ConfigError
from mllm_npu.train.schedule import Constant, Cosine, Linear, WarmupStableDecay

FALLING = [Cosine, Linear, WarmupStableDecay]
SHAPES = ("linear", "sqrt", "cosine")


@pytest.mark.parametrize("schedule", [kind(warmup_steps=4) for kind in FALLING])
def test_rises_then_falls(schedule):
    factors = [schedule.factor(step, 40) for step in range(40)]
    assert factors[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert factors[4:] == sorted(factors[4:], reverse=True)
    assert factors[4] == pytest.approx(1.0)


@pytest.mark.parametrize("kind", FALLING)
@pytest.mark.parametrize("warmup_steps", [0, 2, 500])
def test_stays_at_the_floor_after_the_end(kind, warmup_steps):
    schedule = kind(warmup_steps=warmup_steps, floor=0.1)
    assert [schedule.factor(step, 100) for step in (100, 101, 5000)] == [0.1, 0.1, 0.1]
    assert schedule.factor(0, 0) == 0.1


@pytest.mark.parametrize("kind", FALLING)
def test_reaches_the_floor_without_a_jump(kind):
    factors = [kind(warmup_steps=10, floor=0.1).factor(step, 1000) for step in range(10, 1005)]
    assert all(0 <= before - after < 0.08 for before, after in pairwise(factors))


@pytest.mark.parametrize("kind", [*FALLING, Constant])
def test_a_step_knows_nothing_of_those_before(kind):
    """What a resumed run asks first is what the whole run had asked there."""
    whole = [kind(warmup_steps=7).factor(step, 60) for step in range(70)]
    schedule = kind(warmup_steps=7)
    before = dict(vars(schedule))
    assert [schedule.factor(step, 60) for step in reversed(range(70))] == whole[::-1]
    assert vars(schedule) == before


def test_cosine_is_half_way_in_the_middle():
    assert Cosine(warmup_steps=10, floor=0.2).factor(60, 110) == pytest.approx(0.6)


def test_constant_stays_at_one():
    schedule = Constant(warmup_steps=2)
    assert [schedule.factor(step, 5) for step in (0, 1, 2, 9)] == [0.5, 1.0, 1.0, 1.0]
    assert Constant().factor(0, 5) == 1.0
    assert Constant(floor=0.1).factor(9, 5) == 1.0


@pytest.mark.parametrize("kind", [*FALLING, Constant])
def test_warm_up_longer_than_the_run_never_reaches_the_peak(kind):
    schedule = kind(warmup_steps=50)
    assert schedule.factor(9, 10) == pytest.approx(0.2)
    assert schedule.factor(10, 10) == schedule.factor(40, 10) < 1


@pytest.mark.parametrize("shape", SHAPES)
def test_stable_then_a_fall_of_its_share(shape):
    schedule = WarmupStableDecay(warmup_steps=10, decay_share=0.2, decay_shape=shape, floor=0.1)
    assert {schedule.factor(step, 1000) for step in range(9, 801)} == {1.0}
    assert schedule.factor(801, 1000) < 1
    middle = {"linear": 0.55, "sqrt": 0.1 + 0.9 * (1 - 0.5**0.5), "cosine": 0.55}[shape]
    assert schedule.factor(900, 1000) == pytest.approx(middle)
    assert schedule.factor(1000, 1000) == 0.1


def test_steps_of_the_fall_come_before_its_share():
    schedule = WarmupStableDecay(decay_share=0.9, decay_steps=10, decay_shape="linear")
    assert [schedule.factor(step, 100) for step in (90, 95, 99)] == pytest.approx([1, 0.5, 0.1])
    assert WarmupStableDecay(decay_steps=0).factor(99, 100) == 1.0


def test_a_fall_longer_than_the_run_begins_behind_the_warm_up():
    schedule = WarmupStableDecay(warmup_steps=20, decay_steps=500, decay_shape="linear")
    assert schedule.factor(19, 100) == schedule.factor(20, 100) == 1.0
    assert schedule.factor(60, 100) == pytest.approx(0.5)


def test_a_longer_run_begins_as_a_shorter_one_did():
    schedule = WarmupStableDecay(warmup_steps=10, decay_steps=20)
    short, long = ([schedule.factor(step, end) for step in range(80)] for end in (100, 5000))
    assert short == long


@pytest.mark.parametrize("kind", [*FALLING, Constant])
@pytest.mark.parametrize("arguments", [{"warmup_steps": -1}, {"floor": 1.5}])
def test_refuses_what_makes_no_sense(kind, arguments):
    with pytest.raises(ConfigError, match="floor"):
        kind(**arguments)


@pytest.mark.parametrize(
    "arguments", [{"decay_share": 1.1}, {"decay_steps": -1}, {"decay_shape": "steps"}]
)
def test_refuses_a_fall_that_makes_no_sense(arguments):
    with pytest.raises(ConfigError, match="linear, sqrt, cosine"):
        WarmupStableDecay(**arguments)


CHOSEN = {
    "cosine": Cosine,
    "linear": Linear,
    "constant": Constant,
    "wsd": WarmupStableDecay,
}


@pytest.mark.parametrize(("option", "kind"), CHOSEN.items())
def test_an_option_changes_the_shape_and_keeps_warm_up_and_floor(option, kind):
    typed = ["train=published", f"train/schedule={option}", "train.schedule.floor=0.5"]
    schedule = build_part(load_config("training", typed).train.schedule)
    assert type(schedule) is kind
    assert schedule.warmup_steps == 500
    assert schedule.factor(10**6, 10**6) == (1.0 if kind is Constant else 0.5)


@pytest.mark.parametrize("kind", CHOSEN.values())
def test_one_schedule_stands_in_for_another_by_its_class(kind):
    target = f"train.schedule._target_={kind.__module__}.{kind.__name__}"
    typed = [target, "train.schedule.warmup_steps=3"]
    schedule = build_part(load_config("training", typed).train.schedule)
    assert (type(schedule), schedule.warmup_steps) == (kind, 3)
