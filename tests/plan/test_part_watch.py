"""Every kernel belongs to a part of the model, in both directions and when it is run again."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from mllm_npu.plan.part_watch import OUTSIDE, PartWatch


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x):
        return self.inner(x).tanh()


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.eye, self.mouth = Block(), Block()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        seen = checkpoint(self.eye, x, use_reentrant=False)
        return self.mouth(seen * self.scale)


class Objective(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = Model()
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.model(x)).sum()


class Seen(TorchDispatchMode):
    def __init__(self, watch):
        super().__init__()
        self.watch = watch
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.calls.append((name, *self.watch.now(), self.watch.runs_again()))
        return func(*args, **(kwargs or {}))


@pytest.fixture
def seen():
    objective = Objective()
    watch = PartWatch(objective)
    with watch(), Seen(watch) as mode:
        objective(torch.ones(2, 4, requires_grad=True)).backward()
    return mode.calls


def parts_of(calls, *, name, phase, again=False):
    return [
        part for call, part, when, twice in calls if (call, when, twice) == (name, phase, again)
    ]


def test_forward_by_the_modules_that_are_called(seen):
    assert parts_of(seen, name="addmm", phase="forward") == ["eye", "mouth", "head"]
    assert parts_of(seen, name="tanh", phase="forward") == ["eye", "mouth"]
    assert parts_of(seen, name="mul", phase="forward") == [OUTSIDE]


def test_backward_by_the_nodes_of_the_forward_pass(seen):
    assert parts_of(seen, name="tanh_backward", phase="backward") == ["mouth", "eye"]
    assert parts_of(seen, name="mm", phase="backward") == ["head"] * 2 + ["mouth"] * 2 + ["eye"] * 2


def test_what_is_run_again_is_work_of_the_backward_pass(seen):
    assert parts_of(seen, name="addmm", phase="backward", again=True) == ["eye"]


def test_forward_and_optimizer_are_told_apart():
    watch = PartWatch(Objective())
    assert watch.in_forward()
    assert watch.now() == (OUTSIDE, "forward")
    watch.optimizing = True
    assert not watch.in_forward()
    assert watch.now() == ("optimizer", "optimizer")


def test_parameters_have_parts():
    objective = Objective()
    parts = PartWatch(objective).parts
    assert parts[id(objective.model.eye.inner.weight)] == "eye"
    assert parts[id(objective.model.scale)] == OUTSIDE
    assert parts[id(objective.head.bias)] == "head"


def test_a_part_that_fails_is_known(seen):
    objective = Objective()
    watch = PartWatch(objective)
    with watch(), pytest.raises(RuntimeError):
        objective.model(torch.ones(2, 5))
    assert watch.latest == "eye"
    assert watch.now()[0] == OUTSIDE
