"""Equal kernels are counted together, with their FLOPs and bytes."""

import pytest
import torch
from torch import nn

from mllm_npu.plan.operation_log import OperationLog, is_view, moved_bytes
from mllm_npu.plan.part_watch import PartWatch

ATEN = torch.ops.aten


class Objective(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Linear(2, 2))


@pytest.fixture
def log():
    return OperationLog(parts=PartWatch(Objective()), world=8)


def call(log, kernel, *args, **kwargs):
    log.note(kernel, args, kwargs, kernel(*args, **kwargs))


def test_equal_calls_are_one_operation(log):
    left, right = torch.ones(4, 8), torch.ones(8, 16)
    for _ in range(3):
        call(log, ATEN.mm.default, left, right)
    call(log, ATEN.mm.default, left, right.bfloat16().float()[:, :8])
    many, one = log.operations()
    assert (many.name, many.calls, many.dtype) == ("aten.mm", 3, "float32")
    assert many.shapes == ((4, 8), (8, 16), (4, 16))
    assert many.flops == 2 * 4 * 8 * 16
    assert many.bytes == 4 * (4 * 8 + 8 * 16 + 4 * 16)
    assert one.calls == 1
    assert log.needed_flops == 3 * many.flops + one.flops


def test_what_computes_nothing_is_left_out(log):
    call(log, ATEN.empty.memory_format, [4])
    assert log.operations() == ()
    assert is_view(ATEN.view.default)
    assert is_view(ATEN.expand.default)
    assert not is_view(ATEN.add_.Tensor)
    assert not is_view(ATEN.mm.default)


def test_one_micro_batch_can_stand_for_many(log):
    log.weight = 5
    call(log, ATEN.mm.default, torch.ones(2, 2), torch.ones(2, 2))
    log.add_exchange("all_gather", "shard", 8, 100)
    assert log.operations()[0].calls == 5
    assert log.exchanges()[0].calls == 5
    assert log.needed_flops == 5 * 16


def test_exchanges_of_one_rank_are_none(log):
    log.add_exchange("all_reduce", "world", 1, 100)
    assert log.exchanges() == ()


A, B = torch.ones(16), torch.ones(16)


@pytest.mark.parametrize(
    ("kernel", "args", "kwargs", "numbers"),
    [
        (ATEN.add.Tensor, (A, B), {}, 3 * 16),
        (ATEN.add_.Tensor, (A, B), {}, 3 * 16),
        (ATEN.zero_.default, (A,), {}, 16),
        (ATEN.copy_.default, (A, B), {}, 2 * 16),
        (ATEN.add.Tensor, (A, B[:1].expand(16)), {}, 2 * 16 + 16),
        (ATEN.index_select.default, (torch.ones(1000, 4), 0, torch.zeros(2).long()), {}, 2 * 8 + 4),
        (ATEN._foreach_mul_.Scalar, ([A, B], 2.0), {}, 4 * 16),
    ],
)
def test_bytes(kernel, args, kwargs, numbers):
    out = kernel(*args, **kwargs)
    made = [out] if isinstance(out, torch.Tensor) else []
    assert moved_bytes(kernel, args, kwargs, made) == 4 * numbers


def test_what_sharding_copies_counts_once_each_way():
    kernel = torch.ops.fsdp.split_with_sizes_copy.default
    whole, parts = torch.ones(2, 8), [torch.ones(2, 3), torch.ones(2, 5)]
    assert moved_bytes(kernel, (whole, [3, 5], 1), {"out": parts}, []) == 4 * 2 * 16
    kernel = torch.ops.fsdp.all_gather_copy_in.default
    inputs, room = [torch.ones(8)], torch.ones(64)
    assert moved_bytes(kernel, (inputs, room, [8], 8, 0), {}, [room]) == 4 * 2 * 8
