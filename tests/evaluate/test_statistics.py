"""Standard errors and bootstrap intervals against what can be worked out by hand."""

import math

import numpy as np
import pytest

from mllm_npu.evaluate.statistics import mean_interval, standard_error, statistic_interval


@pytest.mark.parametrize(
    ("scores", "error"),
    [
        ([], 0.0),
        ([1.0], 0.0),
        ([1.0] * 5, 0.0),
        ([1.0] * 90 + [0.0] * 10, math.sqrt(0.9 * 0.1 / 99)),
        ([0.0, 2.0], 1.0),
        ([1, 2, 3, 4], math.sqrt(5 / 3 / 4)),
    ],
)
def test_the_standard_error_is_that_of_the_sample(scores, error):
    assert standard_error(scores) == pytest.approx(error)


@pytest.mark.parametrize(("scores", "ends"), [([], (0.0, 0.0)), ([0.3], (0.3, 0.3))])
def test_an_interval_of_next_to_nothing_is_a_point(scores, ends):
    assert mean_interval(scores) == ends


def test_equal_scores_have_no_width():
    assert mean_interval([0.25] * 7) == (0.25, 0.25)


def test_an_interval_is_that_of_the_normal_law_where_scores_are_many():
    random = np.random.default_rng(7)
    scores = (random.random(4000) < 0.7).astype(float).tolist()
    low, high = mean_interval(scores)
    mean, reach = sum(scores) / 4000, 1.96 * standard_error(scores)
    assert low == pytest.approx(mean - reach, abs=0.15 * reach)
    assert high == pytest.approx(mean + reach, abs=0.15 * reach)


def test_an_interval_is_the_same_for_the_same_scores():
    scores = [0.0, 1.0, 1.0, 0.5, 0.25]
    assert mean_interval(scores) == mean_interval(list(scores))


def test_an_interval_holds_the_truth_as_often_as_it_says():
    random = np.random.default_rng(3)
    hits = 0
    for _ in range(100):
        low, high = mean_interval((random.random(120) < 0.4).astype(float).tolist())
        hits += low <= 0.4 <= high
    assert 88 <= hits <= 99


def test_a_statistic_is_drawn_by_units():
    """Of two groups only four drawings are there: both twice, or one of each."""
    units = [[1.0, 1.0, 1.0], [0.0]]
    mean_of_means = lambda drawn: sum(sum(unit) / len(unit) for unit in drawn) / len(drawn)  # noqa: E731
    error, low, high = statistic_interval(units, mean_of_means)
    assert (low, high) == (0.0, 1.0)
    assert error == pytest.approx(math.sqrt(0.125), rel=0.1)


def test_a_statistic_that_is_a_mean_has_the_error_of_a_mean():
    scores = [float(number % 3 == 0) for number in range(300)]
    error, low, high = statistic_interval(scores, lambda drawn: sum(drawn) / len(drawn))
    assert error == pytest.approx(standard_error(scores), rel=0.1)
    assert (low, high) == pytest.approx(mean_interval(scores), abs=0.01)


def test_one_unit_has_no_width():
    assert statistic_interval([4.0], lambda drawn: drawn[0]) == (0.0, 4.0, 4.0)
