from pathlib import Path

import pytest

from mllm_npu.evaluate.digits_suite import DigitsSuite
from mllm_npu.evaluate.scenes_suite import ScenesSuite
from mllm_npu.evaluate.world_suite import WorldSuite
from mllm_npu.inference.options import GenerationOptions

GIVEN = {
    "engine": None,
    "world": Path("nowhere"),
    "options": GenerationOptions(),
    "limit": None,
    "meter": None,
}


class Counting(WorldSuite):
    def __post_init__(self):
        self.limit += 1

    def measure(self):
        return self.limit


def test_a_suite_is_given_everything_by_name():
    assert Counting(**{**GIVEN, "limit": 3}).measure() == 4
    with pytest.raises(TypeError, match="meter"):
        Counting(**{name: value for name, value in GIVEN.items() if name != "meter"})


def test_a_suite_that_measures_nothing_cannot_be_made():
    with pytest.raises(TypeError, match="abstract"):
        WorldSuite(**GIVEN)


def test_the_suites_of_both_worlds_are_such():
    assert issubclass(DigitsSuite, WorldSuite)
    assert issubclass(ScenesSuite, WorldSuite)
