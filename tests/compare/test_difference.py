"""Differences are told in figures, and what cannot be compared in words."""

import math

import pytest
import torch

from mllm_npu.compare.difference import measure

NAN, INF = math.nan, math.inf


def test_the_same_is_no_difference():
    found = measure(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.0]))
    assert (found.relative, found.max_absolute, found.max_relative, found.cosine) == (0, 0, 0, 1)
    assert found.problem == ""


def test_the_error_is_that_of_the_norm():
    found = measure(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5]))
    assert found.relative == pytest.approx(0.1)
    assert found.max_absolute == pytest.approx(0.5)
    assert found.max_relative == pytest.approx(0.125)
    assert 0.99 < found.cosine < 1


def test_small_elements_are_measured_by_the_typical_one():
    a = torch.tensor([1e-12, 1.0, 1.0, 1.0])
    found = measure(a, a + torch.tensor([1e-3, 0, 0, 0]))
    assert found.max_relative == pytest.approx(1e-3 / (math.sqrt(3) / 2), rel=1e-3)


def test_a_floor_stands_in_for_what_has_cancelled():
    a, b = torch.tensor([1e-9, -1e-9]), torch.tensor([-1e-9, 1e-9])
    assert measure(a, b).relative == pytest.approx(2)
    assert measure(a, b, floor=1.0).relative == pytest.approx(2.8e-9, rel=0.1)


def test_zeros_agree_with_zeros_alone():
    zeros = torch.zeros(3)
    assert measure(zeros, zeros).relative == 0
    assert measure(zeros, torch.ones(3)).relative == INF
    assert measure(torch.ones(3), zeros).relative == 1


def test_nothing_agrees_with_nothing():
    assert measure(torch.zeros(0, 3), torch.zeros(0, 3)).relative == 0


def test_dtypes_may_differ():
    a = torch.linspace(1, 2, 50)
    found = measure(a, a.bfloat16())
    assert 1e-4 < found.relative < 4e-3


def test_shapes_may_not():
    found = measure(torch.zeros(2, 3), torch.zeros(3, 2))
    assert found.relative == INF
    assert found.problem == "shape [2, 3] on A, [3, 2] on B"
    assert not found.is_broken


def test_whole_numbers_are_equal_or_not():
    a = torch.tensor([1, 2, 3, 4])
    found = measure(a, torch.tensor([1, 2, 3, 9]))
    assert (found.relative, found.max_absolute, found.max_relative) == (0.25, 5, 1.25)
    assert measure(a, a).relative == 0
    assert measure(torch.tensor([True]), torch.tensor([False])).relative == 1
    assert measure(a, a.float()).problem == "int64 on A, float32 on B"


@pytest.mark.parametrize(
    ("a", "b", "told"),
    [
        ([1.0, NAN], [1.0, 2.0], "not finite: 1 on A of 2 elements"),
        ([1.0, 2.0], [INF, NAN], "not finite: 2 on B of 2 elements"),
        ([NAN, 2.0], [NAN, 2.0], "not finite: 1 on A and 1 on B of 2 elements"),
        ([INF, 2.0], [-INF, 2.0], "not finite: 1 on A and 1 on B of 2 elements"),
    ],
)
def test_what_is_no_number_is_named(a, b, told):
    found = measure(torch.tensor(a), torch.tensor(b))
    assert found.problem == told
    assert found.is_broken
    assert found.relative == INF


def test_a_mask_of_infinities_is_none():
    mask = torch.tensor([-INF, 3.0, 4.0])
    assert measure(mask, mask).relative == 0
    assert measure(mask, torch.tensor([-INF, 3.0, 4.5])).relative == pytest.approx(0.1)


def test_complex_numbers_are_pairs():
    a = torch.tensor([3 + 4j])
    assert measure(a, a * 1.1).relative == pytest.approx(0.1)


def test_double_precision_is_not_lost():
    a = torch.tensor([1.0], dtype=torch.float64)
    assert measure(a, a + 1e-12).relative == pytest.approx(1e-12, rel=1e-3)
