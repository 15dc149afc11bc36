"""Whatever is wrong in one module, that module is named, as it runs and alone."""

import math

import pytest
import torch


def found(tools, change, *, isolate=False):
    a, b = tools.Toy(), tools.Toy()
    change(b)
    return tools.compare(a, b, isolate=isolate)[1]


LEAVES = ["embed", "blocks.0.norm", "blocks.1.up", "blocks.1.act", "blocks.2.down", "head"]


@pytest.mark.parametrize("name", LEAVES)
def test_forward(tools, name):
    verdict = found(
        tools, lambda b: tools.change_forward(b.part(name), lambda x: x * 1.01), isolate=True
    )
    assert (verdict.first.module, verdict.first.direction) == (name, "forward")
    assert verdict.first.given < 1e-6
    assert verdict.first.row.difference.relative == pytest.approx(0.01, rel=1e-3)
    ((guilty),) = verdict.guilty
    assert (guilty.module, guilty.direction) == (name, "forward")


@pytest.mark.parametrize("name", LEAVES[1:])
def test_backward_only(tools, name):
    verdict = found(tools, lambda b: tools.change_backward(b.part(name)), isolate=True)
    assert (verdict.first.module, verdict.first.direction) == (name, "backward")
    assert verdict.first.given < 1e-6
    ((guilty),) = verdict.guilty
    assert (guilty.module, guilty.direction) == (name, "backward")


@pytest.mark.parametrize("name", ["embed.weight", "blocks.1.norm.bias", "head.weight"])
def test_parameter_only(tools, name):
    module = name.rpartition(".")[0]
    verdict = found(
        tools, lambda b: tools.change_parameter(b.model.get_parameter(name)), isolate=True
    )
    assert (verdict.first.module, verdict.first.direction) == (module, "parameter")
    assert verdict.first.detail == f"gradient of {name}"
    ((guilty),) = verdict.guilty
    assert (guilty.module, guilty.direction) == (module, "parameter")


def change_sum(b):
    """What a block does between its modules."""
    block = b.part("blocks.1")
    block.forward = lambda x: x * 1.01 + block.down(block.act(block.up(block.norm(x))))


def test_what_a_module_does_itself_behind_the_ones_inside(tools):
    verdict = found(tools, change_sum, isolate=True)
    assert (verdict.first.module, verdict.first.direction) == ("blocks.1", "forward")
    ((guilty),) = verdict.guilty
    assert guilty.module == "blocks.1"


def change_between(b):
    block = b.part("blocks.1")
    block.forward = lambda x: x + block.down(block.act(block.up(block.norm(x)) * 1.01))


def test_what_a_module_does_itself_between_the_ones_inside(tools):
    verdict = found(tools, change_between, isolate=True)
    assert verdict.first.module == "blocks.1"
    assert verdict.first.detail == "its own operations before blocks.1.act"
    ((guilty),) = verdict.guilty
    assert guilty.module == "blocks.1"


def test_a_gradient_that_is_changed_between_modules(tools):
    def change(b):
        block = b.part("blocks.1")
        block.forward = lambda x: (
            x + block.down(block.act(tools.wrong_gradient(block.up(block.norm(x)))))
        )

    verdict = found(tools, change, isolate=True)
    assert (verdict.first.module, verdict.first.direction) == ("blocks.1", "backward")
    assert verdict.first.detail == "its own operations behind blocks.1.up"
    ((guilty),) = verdict.guilty
    assert (guilty.module, guilty.direction) == ("blocks.1", "backward")


def test_the_objective_itself(tools):
    def change(b):
        b.forward = lambda x: {"loss": (b.model(x) - b.targets).square().mean() * 1.01}

    verdict = found(tools, change, isolate=True)
    assert (verdict.first.module, verdict.first.direction) == ("objective", "forward")
    ((guilty),) = verdict.guilty
    assert guilty.module == "objective"


def test_a_gradient_behind_a_module_that_gives_on(tools):
    """The model gives on what its head gave; the objective is wrong, not the model."""

    def change(b):
        b.forward = lambda x: {
            "loss": (tools.wrong_gradient(b.model(x)) - b.targets).square().mean()
        }

    first = found(tools, change).first
    assert (first.module, first.direction) == ("objective", "backward")
    assert first.detail == "its own operations behind model"


def test_what_is_no_number_comes_before_all(tools):
    def change(b):
        tools.change_forward(b.part("blocks.0.up"), lambda x: x * 1.01)
        tools.change_forward(b.part("blocks.2.act"), lambda x: x.masked_fill(x > 0, math.nan))

    first = found(tools, change).first
    assert first.module == "blocks.2.act"
    assert "not finite" in str(first)
    assert "on B" in str(first)


def test_of_several_calls_the_number_is_told(tools):
    def share(toy, factors):
        block = toy.part("blocks.0")
        toy.model.blocks[1] = toy.model.blocks[2] = block
        calls = iter(factors)
        forward = block.act.forward
        block.act.forward = lambda x: forward(x) * next(calls)
        return toy

    a, b = share(tools.Toy(), [1, 1, 1]), share(tools.Toy(), [1, 1.01, 1])
    _, verdict = tools.compare(a, b)
    assert verdict.first.name == "blocks.0.act (call 2)"


def test_other_weights_are_told(tools):
    def change(b):
        with torch.no_grad():
            b.model.blocks[1].up.weight.mul_(1.01)

    first = found(tools, change).first
    assert first.module == "blocks.1.up"
    assert first.differs_in_weights
    assert str(first).endswith("; its weights differ")


def test_the_line_reads_as_a_sentence(tools):
    verdict = found(
        tools, lambda b: tools.change_forward(b.part("blocks.1.up"), lambda x: x * 1.01)
    )
    told = str(verdict.first)
    assert told.startswith("blocks.1.up, forward, relative error 1.0e-02 over bound ")
    assert "; its inputs agree to " in told
    verdict = found(tools, lambda b: tools.change_backward(b.part("blocks.1.up")))
    assert "; what reaches it agrees to " in str(verdict.first)
