import pytest
import torch
import torch.nn.functional as F

from mllm_npu.ops import swiglu as module
from mllm_npu.ops.swiglu import swiglu


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_bit_is_that_of_the_two_steps(dtype):
    gate, up = (torch.randn(3, 8).to(dtype) for _ in range(2))
    assert torch.equal(swiglu(gate, up), F.silu(gate) * up)


def test_a_gate_lets_through_by_its_logistic():
    gate, up = torch.tensor([0.0, 50.0, -50.0]), torch.tensor([3.0, 2.0, 4.0])
    torch.testing.assert_close(swiglu(gate, up), torch.tensor([0.0, 100.0, 0.0]))


def test_the_fused_way_hands_over_gate_and_up_side_by_side(npu_kernels):
    def fused(x, dim):
        first, second = x.chunk(2, dim)
        return F.silu(first) * second

    npu_kernels.npu_swiglu = fused
    gate, up = torch.randn(3, 8), torch.randn(3, 8)
    torch.testing.assert_close(module._fused(gate, up), swiglu(gate, up))


def test_what_the_kernel_does_not_take_goes_another_way():
    gate = torch.randn(3, 8)
    assert module._suits_npu(gate, gate)
    assert not module._suits_npu(gate, gate.bfloat16())
    assert not module._suits_npu(gate, gate[:1])
    assert not module._suits_npu(gate.double(), gate.double())
    assert not module._suits_npu(gate[:0], gate[:0])
    assert swiglu(gate.to("meta"), gate.to("meta")).is_meta
