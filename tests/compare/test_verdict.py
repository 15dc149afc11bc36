"""What a comparison says in a few lines."""

from dataclasses import replace

import torch
from torch import nn

from mllm_npu.compare.recording import Facts, Step
from mllm_npu.compare.verdict import judge


def test_equal_sides_agree(tools):
    comparison, verdict = tools.compare(tools.Toy(), tools.Toy(), isolate=True)
    assert verdict.agrees
    assert verdict.is_isolated
    (line,) = verdict.lines()
    assert line.startswith(f"agree: {len(comparison.rows) + len(comparison.own_rows)} tensors")


def test_what_is_nearest_to_its_bound_is_named(tools):
    b = tools.Toy()
    tools.change_forward(b.part("blocks.1.up"), lambda x: x * (1 + 5e-6))
    _, verdict = tools.compare(tools.Toy(), b)
    assert verdict.agrees
    assert verdict.closest.event.module.startswith("blocks.1")
    assert "nearest to its bound, at " in verdict.lines()[0]


def test_a_bound_of_ones_own(tools):
    b = tools.Toy()
    tools.change_forward(b.part("blocks.1.up"), lambda x: x * 1.01)
    assert not tools.compare(tools.Toy(), b, rtol=1e-3)[1].agrees
    assert tools.compare(tools.Toy(), b, rtol=0.1)[1].agrees


def test_many_guilty_modules_are_counted(tools):
    b = tools.Toy()
    for block in b.model.blocks:
        for name in ("norm", "up", "down"):
            tools.change_forward(getattr(block, name), lambda x: x * 1.01)
    _, verdict = tools.compare(tools.Toy(), b, isolate=True)
    assert len(verdict.guilty) == 9
    lines = verdict.lines()
    assert lines[0].startswith("first divergence: blocks.0.norm, forward")
    assert lines[-1] == "and 5 more modules by themselves"
    assert sum(line.startswith("guilty by itself: ") for line in lines) == 4


def test_growth_without_a_culprit_is_told(tools):
    """Each module is a little off, below its bound, and only the whole is over it."""
    b = tools.Toy()
    for name in ("embed", "head"):
        tools.change_forward(b.part(name), lambda x: x * (1 + 3.5e-6))
    comparison, _ = tools.compare(tools.Toy(), b, isolate=True)
    last = next(row for row in comparison.rows if row.event.kind == "loss")
    comparison._rows[last.event.key] = replace(last, bound=last.difference.relative / 2)
    verdict = judge(comparison)
    assert verdict.first.module == "loss"
    assert verdict.guilty == ()
    assert verdict.lines()[1].startswith("no module gives something else by itself")


def test_modules_of_one_side_alone_are_told(tools):
    b = tools.Toy()
    b.model.blocks[0].act = nn.Sequential(nn.GELU())
    _, verdict = tools.compare(tools.Toy(), b)
    assert verdict.agrees
    assert verdict.only_b == ("blocks.0.act.0",)
    assert verdict.lines()[-1] == "called on side B alone, not compared: blocks.0.act.0"


def test_modules_that_could_not_run_alone_are_told(tools):
    comparison, _ = tools.compare(tools.Toy(), tools.Toy(), isolate=True)
    comparison.facts.unlike = ["embed", "embed", "head"]
    verdict = judge(comparison)
    assert verdict.lines()[1] == "given other shapes on side B, not run alone: embed, head"


def test_weights_that_differ_are_told(tools):
    b = tools.Toy(seed=1)
    _, verdict = tools.compare(tools.Toy(), b)
    assert verdict.first.module == "embed"
    # Those of the norms are ones on both sides.
    assert len(verdict.weights) == len(list(b.model.parameters())) - 6
    assert "weights that differ from the start: embed.weight" in verdict.lines()[-1]
    assert verdict.lines()[-1].endswith("more")


def test_updates_apart_are_told(tools):
    comparison, _ = tools.compare(tools.Toy(), tools.Toy())
    comparison.recording.facts.steps = [Step(step=1, loss=2.0, grad_norm=1.0)]
    facts = Facts(
        steps=[Step(step=1, loss=2.1, grad_norm=1.0)],
        weights=comparison.recording.facts.weights,
    )
    comparison.end(comparison.calls, facts)
    verdict = judge(comparison)
    assert not verdict.agrees
    assert verdict.lines()[0] == "the whole agrees, its parts do not"
    assert verdict.lines()[1].startswith("update 1: loss 2 and 2.1")


def test_a_cut_gradient_is_a_divergence(tools):
    b = tools.Toy()
    tools.change_forward(b.part("blocks.1.act"), torch.Tensor.detach)
    _, verdict = tools.compare(tools.Toy(), b, isolate=True)
    assert not verdict.agrees
    assert verdict.first.module == "blocks.1.act"
    assert "a gradient is asked of it on side A alone" in str(verdict.first)
    assert [finding.module for finding in verdict.guilty] == ["blocks.1.act"]
