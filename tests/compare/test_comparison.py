"""Numbers of two sides side by side, with the bound that each may have."""

import math

import pytest
import torch
from torch import nn

from mllm_npu.compare.bounds import Bounds
from mllm_npu.compare.comparison import Comparison
from mllm_npu.compare.recording import Event, Facts, Step


def rows_of(comparison, kind):
    return {row.event.module: row for row in comparison.rows if row.event.kind == kind}


def test_equal_sides_agree_everywhere(tools):
    comparison, _ = tools.compare(tools.Toy(), tools.Toy(), isolate=True)
    assert comparison.rows
    assert comparison.own_rows
    for row in comparison.rows + comparison.own_rows:
        assert not row.is_over
        assert row.difference.relative < 1e-6
        assert row.difference.problem == ""


def test_rows_come_in_the_order_of_side_a(tools):
    recording = tools.record(tools.Toy())
    comparison = Comparison(recording, bounds=Bounds(), compute_dtype=torch.float32)
    tools.observe(tools.Toy(), comparison)
    assert [row.event.key for row in comparison.rows] == list(recording.entries)


def test_bounds_grow_with_depth_forward_and_on_backward(tools):
    comparison, _ = tools.compare(tools.Toy(), tools.Toy())
    outputs, gradients = rows_of(comparison, "output"), rows_of(comparison, "output_grad")
    eps = 32 * torch.finfo(torch.float32).eps
    total = 14  # embed, three blocks of four, head
    assert outputs["embed"].bound == pytest.approx(eps)
    assert outputs["blocks.0"].bound == pytest.approx(eps * math.sqrt(5))
    assert outputs["head"].bound == pytest.approx(eps * math.sqrt(total))
    assert gradients["head"].bound == pytest.approx(eps * math.sqrt(total))
    assert gradients["embed"].bound == pytest.approx(eps * math.sqrt(2 * total - 1))


def test_bounds_of_modules_alone_count_what_is_inside(tools):
    comparison, _ = tools.compare(tools.Toy(), tools.Toy(), isolate=True)
    eps = 32 * torch.finfo(torch.float32).eps
    own = {
        (row.event.kind, row.event.module, row.event.path): row.bound for row in comparison.own_rows
    }
    assert own["own_output", "blocks.2.up", ""] == pytest.approx(eps)
    assert own["own_output", "blocks.2", ""] == pytest.approx(2 * eps)
    assert own["own_input_grad", "blocks.2", "0"] == pytest.approx(eps * math.sqrt(8))
    assert own["own_parameter_grad", "blocks.2.up", "weight"] == pytest.approx(eps * math.sqrt(2))


def test_the_coarsest_dtype_of_both_sides_counts(tools):
    recording = tools.record(tools.Toy())
    comparison = Comparison(recording, bounds=Bounds(), compute_dtype=torch.bfloat16)
    tools.observe(tools.Toy(), comparison)
    assert rows_of(comparison, "output")["embed"].bound == pytest.approx(2 * 2**-7)


def test_another_shape_is_told(tools):
    b = tools.Toy()
    b.inputs, b.targets = b.inputs[:3], b.targets[:3]
    comparison, _ = tools.compare(tools.Toy(), b)
    row = rows_of(comparison, "output")["embed"]
    assert row.is_over
    assert row.difference.problem == "shape [5, 8] on A, [3, 8] on B"


def test_a_gradient_that_one_side_lacks_is_told(tools):
    b = tools.Toy()
    tools.change_forward(b.part("blocks.1.act"), torch.Tensor.detach)
    comparison, _ = tools.compare(tools.Toy(), b)
    row = rows_of(comparison, "output_grad")["blocks.1.up"]
    assert row.is_over
    assert row.difference.problem == "side A alone gave it"
    comparison, _ = tools.compare(b, tools.Toy())
    assert any(row.difference.problem == "side B alone gave it" for row in comparison.rows)


def test_a_gradient_of_zeros_is_as_good_as_none(tools):
    a, b = tools.Toy(), tools.Toy()
    for block in (a.model.blocks[2], b.model.blocks[2]):
        nn.init.zeros_(block.down.weight)
    tools.change_forward(b.part("blocks.2.act"), torch.Tensor.detach)
    comparison, _ = tools.compare(a, b)
    assert "blocks.2.up" not in rows_of(comparison, "output_grad")


def test_modules_that_one_side_alone_calls_are_not_compared(tools):
    b = tools.Toy()
    b.model.blocks[0].act = nn.Sequential(nn.GELU())
    comparison, _ = tools.compare(tools.Toy(), b)
    assert not any(row.is_over for row in comparison.rows)


def test_a_bias_may_cancel(tools):
    """The gradient of a bias below a softmax is zero but for rounding."""

    class Keys(tools.Toy):
        def __init__(self):
            super().__init__()
            self.model.keys = nn.Linear(6, 4)

        def forward(self, x):
            scores = torch.randn(3, 4, generator=torch.Generator().manual_seed(2))
            weights = (scores @ self.model.keys(x).T).softmax(-1)
            return {"loss": (weights @ self.targets).square().sum()}

    b = Keys()
    tools.change_forward(b.model.keys, lambda out: out * (1 + 3e-7))
    comparison, verdict = tools.compare(Keys(), b)
    row = next(row for row in comparison.rows if row.event.path == "keys.bias")
    assert row.difference.max_relative > 1e-3
    assert not row.is_over
    assert verdict.agrees


def test_updates_stand_side_by_side(tools):
    comparison, _ = tools.compare(tools.Toy(), tools.Toy())
    comparison.recording.facts.steps = [
        Step(step=1, loss=2.0, grad_norm=1.0),
        Step(step=2, loss=1.0, grad_norm=1.0),
        Step(step=3, loss=math.nan, grad_norm=1.0),
    ]
    steps = [(1, 2.0), (2, 1.1), (3, 1.0)]
    comparison.end([], Facts(steps=[Step(step=n, loss=x, grad_norm=1.0) for n, x in steps]))
    first, second, third = comparison.steps
    assert (first.loss_error, first.norm_error, first.is_over) == (0, 0, False)
    assert second.loss_error == pytest.approx(0.1)
    assert second.bound == pytest.approx(1.5 * first.bound)
    assert second.is_over
    assert third.is_over


def test_changes_by_updates_have_a_bound_of_their_own(tools):
    recording = tools.record(tools.Toy())
    event = Event(kind="change", call=-1, module="w", count=1, path="w")
    recording.take(event, torch.ones(4))
    recording.facts.steps = [Step(step=1, loss=1.0, grad_norm=1.0)]
    comparison = Comparison(recording, bounds=Bounds(), compute_dtype=torch.float32)
    comparison.take(event, torch.full((4,), 1.001))
    row = rows_of(comparison, "change")["w"]
    assert row.difference.relative == pytest.approx(1e-3, rel=1e-3)
    assert 1e-3 < row.bound < 5e-2


def test_shares_tell_how_near_a_bound_is(tools):
    comparison, _ = tools.compare(tools.Toy(), tools.Toy(), rtol=0.0)
    assert all(row.share in (0.0, math.inf) for row in comparison.rows)
