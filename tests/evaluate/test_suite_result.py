import dataclasses

import pytest

from mllm_npu.evaluate.suite_result import SuiteResult


def test_a_suite_needs_figures_and_replies_and_nothing_else():
    result = SuiteResult(title="t", lead="l", figures=[], results=[])
    assert (result.choices, result.galleries, result.confusions) == ((), (), ())
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.title = "other"
