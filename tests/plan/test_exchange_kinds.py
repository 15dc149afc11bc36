"""Collectives are told apart by their kernels and by the ranks that meet."""

import pytest
import torch

from mllm_npu.plan.exchange_kinds import (
    exchange_axis,
    exchange_group,
    exchange_kind,
    exchanged_bytes,
    is_collective,
    tensors_in,
)

C10D = torch.ops.c10d


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("_allgather_base_", "all_gather"),
        ("allgather_", "all_gather"),
        ("_reduce_scatter_base_", "reduce_scatter"),
        ("allreduce_", "all_reduce"),
        ("alltoall_base_", "all_to_all"),
        ("broadcast_", "broadcast"),
        ("barrier", None),
    ],
)
def test_kinds(name, kind):
    kernel = getattr(C10D, name).default
    assert is_collective(kernel)
    assert exchange_kind(kernel) == kind


def test_a_product_is_no_collective():
    assert not is_collective(torch.ops.aten.mm.default)


def test_the_whole_tensor_counts():
    own, whole = torch.empty(4), torch.empty(16)
    assert exchanged_bytes([whole, own, 3], None) == 64
    assert exchanged_bytes([[[own, own]], [own]], None) == 32
    assert exchanged_bytes([own], whole) == 64
    assert list(tensors_in([1, [own, (whole,)], "x"])) == [own, whole]


def test_no_group_where_none_is_named():
    assert exchange_group([torch.empty(1), 3, "sum"]) is None


@pytest.mark.parametrize(
    ("name", "ranks", "axis"),
    [
        ("_allgather_base_", (0, 1, 2, 3), "shard"),
        ("_reduce_scatter_base_", (0, 1), "shard"),
        ("allreduce_", (0, 1, 2, 3), "world"),
        ("allreduce_", (0, 2), "replicate"),
        ("allreduce_", (0, 1), "shard"),
        ("alltoall_base_", (0, 1), "sequence"),
        ("allgather_", (0, 1), "sequence"),
        ("reduce_scatter_", (0, 1), "sequence"),
        ("broadcast_", (0, 1, 2, 3), "world"),
    ],
)
def test_axes(name, ranks, axis):
    kernel = getattr(C10D, name).default
    assert exchange_axis(kernel, exchange_kind(kernel), ranks, 4) == axis
