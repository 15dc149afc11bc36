import pytest

from mllm_npu.plan.exchange_trial import seconds_of


def test_sizes_between_are_on_the_line_and_those_beyond_on_its_end():
    times = [(100, 1.0), (200, 2.0), (1000, 4.0)]
    assert seconds_of(times, 1) == 1.0
    assert seconds_of(times, 150) == pytest.approx(1.5)
    assert seconds_of(times, 600) == pytest.approx(3.0)
    assert seconds_of(times, 1400) == pytest.approx(5.0)


def test_a_noisy_end_never_goes_below_the_smallest():
    assert seconds_of([(100, 1.0), (200, 0.5)], 10_000) == 1.0
