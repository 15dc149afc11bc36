import torch
from torch import nn

from mllm_npu.plan.kernel_watch import KernelWatch
from mllm_npu.plan.operation_log import OperationLog
from mllm_npu.plan.part_watch import PartWatch


class Objective(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Linear(2, 2))


class Hears(KernelWatch):
    def __init__(self, **options):
        super().__init__(**options)
        self.heard = []

    def computed(self, args, out):
        self.heard.append(tuple(out.shape))


def test_kernels_on_real_tensors_are_noted_and_heard():
    watch = Hears(log=OperationLog(parts=PartWatch(Objective()), world=1))
    with watch:
        product = torch.ones(4, 8) @ torch.ones(8, 2)
        product.t().add_(1)
    assert torch.equal(product, torch.full((4, 2), 9.0))
    product = next(one for one in watch.log.operations() if one.name == "aten.mm")
    assert product.bytes == 4 * (32 + 16 + 8)
    assert product.shapes == ((4, 8), (8, 2), (4, 2))
    # Two of ones, a product, a sum; no view.
    assert watch.heard == [(4, 8), (8, 2), (4, 2), (2, 4)]
