import torch

from mllm_npu.plan.trial_step import OperationList, Size, Trial, take_steps

CPU = torch.device("cpu")
SMALL = Size(width=32, blocks=1, tokens=16, classes=50)


def test_a_step_lists_its_operations_by_phase():
    found = take_steps(SMALL, CPU, steps=3)
    phases = {operation.phase for operation in found.operations}
    assert phases == {"forward", "backward", "optimizer"} == set(found.seconds)
    assert all(seconds > 0 for seconds in found.seconds.values())
    names = [operation.name for operation in found.operations]
    assert any("mm" in name for name in names)
    assert any("_fused_adamw_" in name for name in names)
    # A view moves nothing.
    assert not any(".view" in name or ".t." in name for name in names)


def test_equal_operations_are_counted_together():
    one, two = (
        take_steps(Size(width=32, blocks=blocks, tokens=16, classes=50), CPU, steps=1)
        for blocks in (1, 2)
    )

    def products(found):
        return {
            operation.shapes: operation.calls
            for operation in found.operations
            if "aten.mm" in operation.name and operation.phase == "forward"
        }

    assert set(products(one)) == set(products(two))
    assert sum(products(two).values()) > sum(products(one).values())


def test_bytes_are_those_of_inputs_and_results():
    trial = Trial(SMALL, CPU)
    with OperationList(trial) as listed:
        torch.ones(4, 8) @ torch.ones(8, 2)
    product = next(one for one in listed.operations() if "mm" in one.name)
    assert product.bytes == 4 * (32 + 16 + 8)
    assert product.shapes == ((4, 8), (8, 2), (4, 2))


def test_steps_change_the_weights():
    trial = Trial(SMALL, CPU)
    before = [parameter.detach().clone() for parameter in trial.parameters]
    trial.step()
    after = trial.parameters
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
