"""Tests of pairs against numbers worked out by hand."""

import math
from itertools import product
from random import Random

import pytest

from mllm_npu.evaluate.compare_statistics import compare_scores, mcnemar_p, sign_flip_p
from mllm_npu.evaluate.statistics import mean_interval


@pytest.mark.parametrize(
    ("higher", "lower", "p_value"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (3, 3, 1.0),
        (4, 4, 1.0),
        (0, 6, 2 / 64),
        (6, 0, 2 / 64),
        (1, 9, 2 * (1 + 10) / 1024),
        (2, 10, 2 * (1 + 12 + 66) / 4096),
        (12, 5, 2 * (1 + 17 + 136 + 680 + 2380 + 6188) / 2**17),
    ],
)
def test_mcnemar_is_the_binomial_of_the_changes(higher, lower, p_value):
    assert mcnemar_p(higher, lower) == pytest.approx(p_value, rel=1e-12)


def test_mcnemar_holds_for_thousands_of_changes():
    # The normal law with the correction for continuity: z = (87 - 1) / sqrt(5347).
    z = 86 / math.sqrt(5347)
    assert mcnemar_p(2630, 2717) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=0.01)
    assert mcnemar_p(3000, 0) == 0.0 or mcnemar_p(3000, 0) < 1e-300


def brute_force(differences):
    observed = abs(sum(differences))
    sums = [
        abs(sum(sign * value for sign, value in zip(signs, differences, strict=True)))
        for signs in product((1, -1), repeat=len(differences))
    ]
    return sum(total >= observed - 1e-12 for total in sums) / len(sums)


@pytest.mark.parametrize(
    ("differences", "p_value"),
    [
        ([], 1.0),
        ([0.0, 0.0], 1.0),
        ([0.5], 1.0),
        ([1.0, 2.0, 3.0], 2 / 8),
        ([1.0, 2.0, -3.0], 1.0),
        ([0.1, 0.2, 0.0, 0.3, 0.4], 2 / 16),
        # |sum| >= 4: all alike (2), or only the 1 against (2).
        ([3.0, 2.0, -1.0], 4 / 8),
    ],
)
def test_few_differences_are_turned_in_every_way(differences, p_value):
    assert sign_flip_p(differences) == ("exact permutation", p_value)
    assert p_value == brute_force([value for value in differences if value])


def test_equal_sums_in_another_order_count_as_equal():
    differences = [0.1, 0.2, 0.3, -0.1, 0.7, 0.1, 0.3]
    assert sign_flip_p(differences)[1] == brute_force(differences)


def test_many_differences_are_drawn_the_same_way_every_time():
    random = Random(5)
    small = [random.gauss(0.0, 1.0) for _ in range(16)]
    exact = sign_flip_p(small)[1]
    name, drawn = sign_flip_p([*small, 1e-9])
    assert name == "permutation, 10,000 draws"
    assert drawn == pytest.approx(exact, abs=0.02)
    assert sign_flip_p([*small, 1e-9]) == (name, drawn)


def test_what_no_drawing_reaches_is_still_not_nought():
    assert sign_flip_p([1.0] * 60)[1] == pytest.approx(1 / 10_001)


def test_chance_is_found_as_often_as_it_says():
    random = Random(11)
    found = [sign_flip_p([random.gauss(0.0, 1.0) for _ in range(14)])[1] < 0.05 for _ in range(200)]
    assert 2 <= sum(found) <= 20


def test_right_and_wrong_are_compared_by_mcnemar():
    a = [1.0] * 20 + [0.0] * 9 + [1.0] * 1
    b = [1.0] * 20 + [1.0] * 9 + [0.0] * 1
    found = compare_scores(a, b)
    assert (found.test, found.p_value) == ("exact McNemar", pytest.approx(22 / 1024))
    assert (found.num_higher, found.num_lower) == (9, 1)
    assert found.mean == pytest.approx(8 / 30, abs=1e-6)
    low, high = mean_interval([0.0] * 20 + [1.0] * 9 + [-1.0])
    assert found.interval == (round(low, 6), round(high, 6))
    assert low < 8 / 30 < high


def test_grades_are_compared_by_permutation():
    found = compare_scores([0.5, 0.0, 1.0], [0.75, 0.25, 1.0])
    assert (found.test, found.p_value) == ("exact permutation", 0.5)
    assert (found.mean, found.num_higher, found.num_lower) == (pytest.approx(1 / 6, abs=1e-6), 2, 0)


def test_equal_scores_do_not_differ():
    found = compare_scores([1.0, 0.0], [1.0, 0.0])
    assert (found.mean, found.interval, found.p_value) == (0.0, (0.0, 0.0), 1.0)
    assert compare_scores([0.3], [0.3]).p_value == 1.0
