"""What a dry run hands on is plain values that cannot be changed."""

import dataclasses

import pytest

from mllm_npu.plan import traced_step


@pytest.mark.parametrize("name", ["Operation", "Exchange", "Memory", "TracedStep"])
def test_values_are_frozen_and_by_name(name):
    kind = getattr(traced_step, name)
    assert kind.__dataclass_params__.frozen
    assert all(field.kw_only for field in dataclasses.fields(kind))


def test_a_step_is_its_values(make_traced):
    step = make_traced(ranks=4)
    assert dataclasses.replace(step, ranks=8) == make_traced(ranks=8)
    with pytest.raises(dataclasses.FrozenInstanceError):
        step.ranks = 2
