"""Every data set has a colour of its own, the same everywhere."""

import re

from mllm_npu.data.inspect.palette import colours_of


def test_ten_data_sets_have_ten_colours():
    colours = colours_of([f"set{number}" for number in range(10)])
    assert len(set(colours.values())) == 10
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in colours.values())


def test_colours_follow_the_order_and_repeat():
    names = [f"set{number}" for number in range(11)]
    colours = colours_of(names)
    assert colours["set10"] == colours["set0"]
    assert colours_of(names[:3]) == {name: colours[name] for name in names[:3]}
