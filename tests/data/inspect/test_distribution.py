"""Counts give the very numbers that the values give."""

import numpy as np
import pytest

from mllm_npu.data.inspect.distribution import Distribution


@pytest.fixture
def values():
    return np.random.default_rng(0).integers(3, 90, size=501)


@pytest.fixture
def distribution(values):
    made = Distribution()
    made.add(values[:200])
    made.add(values[200:])
    return made


def test_moments_are_those_of_the_values(values, distribution):
    assert distribution.num == 501
    assert distribution.total == values.sum()
    assert distribution.mean == pytest.approx(values.mean())
    assert distribution.std == pytest.approx(values.std())
    assert distribution.max == values.max()


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.95, 1.0])
def test_percentiles_are_those_of_the_values(values, distribution, share):
    wanted = np.percentile(values, 100 * share, method="inverted_cdf")
    assert distribution.percentile(share) == wanted


def test_nothing_counted_is_zero_everywhere():
    empty = Distribution()
    empty.add(np.empty(0, dtype=np.int64))
    assert (empty.num, empty.mean, empty.std, empty.max, empty.percentile(0.5)) == (0, 0, 0, 0, 0)
    assert empty.to_json() == {"mean": 0.0, "p50": 0, "p95": 0, "max": 0}


def test_counts_can_be_given():
    given = Distribution({2: 3, 10: 1})
    assert given.mean == 4
    assert given.to_json() == {"mean": 4.0, "p50": 2, "p95": 10, "max": 10}
