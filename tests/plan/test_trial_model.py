import pytest
import torch

from mllm_npu.plan.trial_model import PHASES, Size, Trial, processor_or_wall

CPU = torch.device("cpu")
SMALL = Size(width=32, blocks=1, tokens=16, classes=50)


def test_a_step_lists_its_kernels_by_phase():
    log = Trial(SMALL, CPU).listed()
    found = log.operations()
    assert {operation.phase for operation in found} == set(PHASES)
    names = [operation.name for operation in found]
    assert "aten.mm" in names
    assert "aten._fused_adamw_" in names
    # A view moves nothing.
    assert not {"aten.view", "aten.t", "aten.detach"} & set(names)
    assert log.exchanges() == ()


def test_equal_kernels_are_counted_together():
    def products(blocks):
        size = Size(width=32, blocks=blocks, tokens=16, classes=50)
        return {
            operation.shapes: operation.calls
            for operation in Trial(size, CPU).listed().operations()
            if operation.name == "aten.mm" and operation.phase == "forward"
        }

    one, two = products(1), products(2)
    assert set(one) == set(two)
    assert sum(two.values()) > sum(one.values())


def test_steps_change_the_weights_and_take_time():
    trial = Trial(SMALL, CPU)
    before = [parameter.detach().clone() for parameter in trial.parameters]
    seconds = trial.step()
    assert set(seconds) == set(PHASES)
    assert all(spent > 0 for spent in seconds.values())
    assert not any(map(torch.equal, before, trial.parameters))
    assert all(parameter.grad is None for parameter in trial.parameters)


def test_a_processor_counts_its_own_time():
    begin = processor_or_wall(CPU)
    assert processor_or_wall(CPU) - begin == pytest.approx(0.0, abs=0.01)
