"""One pass notes what every kernel makes, does and exchanges."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from mllm_npu.device.allocator import Blocks
from mllm_npu.distributed.parallel import Parallel
from mllm_npu.plan.fake_ranks import fake_ranks
from mllm_npu.plan.memory_ledger import MemoryLedger
from mllm_npu.plan.operation_log import OperationLog
from mllm_npu.plan.part_watch import PartWatch
from mllm_npu.plan.step_watch import StepWatch

# Its name from torch 2.13 on, and before.
GATHER = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)


class Objective(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Linear(2, 2))


@pytest.fixture
def watch():
    parts = PartWatch(Objective())
    ledger = MemoryLedger(blocks=Blocks(grain=1), in_forward=parts.in_forward)
    return StepWatch(ledger=ledger, log=OperationLog(parts=parts, world=4))


def test_memory_and_kernels(watch):
    with FakeTensorMode(), watch:
        left = torch.empty(4, 8)
        product = left @ left.t()
        del left
        product.add_(1)
    assert watch.ledger.peak().total == 4 * (4 * 8 + 4 * 4)
    assert watch.ledger.now().total == 4 * 4 * 4
    assert {operation.name for operation in watch.log.operations()} == {"aten.mm", "aten.add_"}


def test_what_was_made_unseen_was_there_before(watch):
    with FakeTensorMode():
        bucket = torch.empty(100, dtype=torch.uint8)
        with watch:
            torch.empty(50, dtype=torch.uint8)
            bucket.add_(1)
    assert watch.ledger.peak().total == 150


def test_tensors_of_the_host_take_nothing_of_the_device(watch):
    real = torch.ones(4)
    with FakeTensorMode(allow_non_fake_inputs=True), watch:
        made = real + torch.empty(4)
    assert watch.ledger.peak().total == 2 * made.nbytes


def test_exchanges_and_their_buffers(watch):
    with fake_ranks(Parallel(kind="fsdp2"), 4), FakeTensorMode(), watch:
        own, whole = torch.empty(4), torch.empty(16)
        GATHER(whole, own)
        dist.all_reduce(own)
        dist.barrier()
    gathered, summed = watch.log.exchanges()
    assert (gathered.kind, gathered.axis, gathered.ranks, gathered.bytes) == (
        "all_gather",
        "shard",
        4,
        64,
    )
    assert (summed.kind, summed.axis, summed.bytes) == ("all_reduce", "world", 16)
    assert watch.ledger.peak().by_kind["exchange"] == 80


def test_of_sharded_tensors_the_rows_of_this_rank_count(watch):
    with fake_ranks(Parallel(kind="fsdp2"), 4):
        mesh = init_device_mesh("cpu", (4,))
        rows = distribute_tensor(torch.ones(16, 8), mesh, [Shard(0)], src_data_rank=None)
        with watch:
            rows * 2
    assert {"aten.mul"} == {o.name for o in watch.log.operations() if o.shapes[0] == (4, 8)}
