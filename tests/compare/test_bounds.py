"""Bounds follow the coarsest dtype and the root of the operations behind."""

import math

import pytest
import torch

from mllm_npu.compare.bounds import Bounds, coarsest_of

F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16


def test_they_grow_as_the_root_of_the_operations():
    bounds = Bounds()
    assert bounds.of([F32], 1) == pytest.approx(32 * torch.finfo(F32).eps)
    assert bounds.of([F32], 100) == pytest.approx(10 * bounds.of([F32], 1))
    assert bounds.of([BF16], 0) == bounds.of([BF16], 1) == pytest.approx(2 * 2**-7)


def test_the_coarsest_dtype_counts():
    bounds = Bounds()
    assert bounds.of([F32, BF16, torch.int64], 4) == bounds.of([BF16], 4)
    assert coarsest_of([F16, F32]) is F16
    assert coarsest_of([F16, BF16]) is BF16
    assert coarsest_of([torch.complex64]) is F32


def test_whole_numbers_have_none():
    assert coarsest_of([torch.int64, torch.bool]) is None
    assert Bounds().of([torch.int64], 9) == 0
    assert Bounds(rtol=0.1).of([torch.bool], 9) == 0


def test_one_bound_may_stand_for_all():
    bounds = Bounds(rtol=1e-3)
    assert bounds.of([F32], 1) == bounds.of([BF16], 1000) == bounds.of_change(1e-5, 7) == 1e-3
    assert bounds.of_numbers([F32], 9) == 1e-3


def test_updates_go_with_the_root_of_the_gradient():
    bounds = Bounds()
    assert bounds.of_change(1e-4, 1) == pytest.approx(2e-2)
    assert bounds.of_change(1e-4, 4) == pytest.approx(4e-2)
    assert bounds.of_change(0.9, 4) == 1


def test_losses_have_the_bound_of_one_operation_and_one_per_update():
    bounds = Bounds()
    assert bounds.of_numbers([F32], 1) == pytest.approx(2 * bounds.of([F32], 1))
    assert bounds.of_numbers([F32], 3) == pytest.approx(4 * bounds.of([F32], 1))


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_a_chain_of_products_stays_below(dtype):
    """Rounding of real products, against the same in float64."""
    generator = torch.Generator().manual_seed(0)
    exact = torch.randn(64, 256, generator=generator, dtype=torch.float64)
    narrow = exact.to(dtype)
    bounds = Bounds()
    for depth in range(1, 20):
        weight = torch.randn(256, 256, generator=generator, dtype=torch.float64) / 16
        exact, narrow = exact @ weight, narrow @ weight.to(dtype)
        error = float((narrow.double() - exact).norm() / exact.norm())
        assert error < bounds.of([dtype], depth)
        assert error > bounds.of([dtype], depth) / 300


def test_what_is_wrong_is_over_it():
    """The error of a norm with another epsilon is no rounding of float32."""
    x = torch.randn(4, 16, generator=torch.Generator().manual_seed(0)) * 0.1
    one, other = (torch.nn.functional.layer_norm(x, (16,), eps=eps) for eps in (1e-5, 1e-6))
    error = float((one - other).norm() / one.norm())
    assert error > Bounds().of([F32], 100)
    assert math.isfinite(error)
