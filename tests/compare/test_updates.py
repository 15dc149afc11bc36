"""Updates are those of a run, and what they change is told."""

import pytest
import torch

from mllm_npu.compare.bench import build_bench, read_packs
from mllm_npu.compare.side import read_side
from mllm_npu.compare.side_config import SideConfigs
from mllm_npu.compare.updates import make_updates


class Listener:
    def __init__(self):
        self.told = {}

    def take(self, event, tensor, *, needs_grad=False):
        assert event.kind == "change"
        self.told[event.path] = tensor


@pytest.fixture(scope="module")
def made(overrides, tmp_path_factory):
    side = read_side("cpu")
    configs = SideConfigs([side], overrides, scratch=tmp_path_factory.mktemp("scratch"))
    bench = build_bench(side, configs.of(side))
    packs = read_packs(bench, 2)
    bench.prepare(packs[0])
    before = {
        name: parameter.detach().clone()
        for name, parameter in bench.objective.trained_parameters().items()
    }
    listener = Listener()
    return bench, before, listener, make_updates(bench, packs, listener, memory_gib=0)


def test_each_has_its_numbers(made):
    _, _, _, steps = made
    assert [step.step for step in steps] == [1, 2]
    assert all(step.loss > 0 and step.grad_norm > 0 for step in steps)


def test_what_they_changed_is_told(made):
    bench, before, listener, _ = made
    after = bench.objective.trained_parameters()
    assert set(listener.told) == {name for name in before if before[name].dim() > 1}
    for name, change in listener.told.items():
        assert torch.allclose(change, after[name].detach() - before[name])
    assert listener.told["projector.query"].abs().max() > 0


def test_no_gradient_stays_behind(made):
    bench, *_ = made
    assert all(parameter.grad is None for parameter in bench.objective.parameters())
