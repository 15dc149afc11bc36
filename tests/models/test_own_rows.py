import pytest
import torch
from pretended import pretended_ranks
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Partial, Replicate, Shard, distribute_tensor

from mllm_npu.errors import WeightsError
from mllm_npu.models.own_rows import from_own_rows, own_rows


def shard_layer(mesh, rows, columns=3):
    layer = nn.Linear(columns, rows, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(rows * columns).view(rows, columns))
    whole = layer.weight.detach().clone()
    fully_shard(layer, mesh=mesh)
    return layer.weight, whole


@pytest.mark.parametrize("num_rows", [1, 2, 3, 4, 5, 7, 8, 13])
def test_rows_are_shared_out_as_the_library_does(num_rows):
    """Also where the last ranks keep fewer rows than the others, or none."""
    covered = []
    for rank in range(4):
        with pretended_ranks(rank, 4) as mesh:
            slot, whole = shard_layer(mesh, num_rows)
            begin, end = own_rows(slot)
            assert torch.equal(slot.to_local(), whole[begin:end])
        covered += range(begin, end)
    assert covered == list(range(num_rows))


@pytest.mark.parametrize("num_rows", [2, 5, 8])
def test_replicas_keep_the_same_rows(num_rows):
    whole = torch.arange(2.0 * num_rows).view(num_rows, 2)
    places = [Replicate(), Shard(0)]
    kept = []
    for rank in range(4):
        with pretended_ranks(rank, 2, 2) as mesh:
            slot = distribute_tensor(whole, mesh, places, src_data_rank=None)
            begin, end = own_rows(slot)
            assert torch.equal(slot.to_local(), whole[begin:end])
        kept.append((begin, end))
    assert kept[:2] == kept[2:]
    assert kept[0][1] == kept[1][0]


def test_rows_shared_out_twice_lie_inside_each_other():
    covered = []
    for rank in range(6):
        with pretended_ranks(rank, 2, 3) as mesh:
            whole = torch.arange(11.0)
            slot = distribute_tensor(whole, mesh, [Shard(0), Shard(0)], src_data_rank=None)
            begin, end = own_rows(slot)
            assert torch.equal(slot.to_local(), whole[begin:end])
        covered += range(begin, end)
    assert covered == list(range(11))


def test_what_every_rank_holds_has_all_rows():
    with pretended_ranks(1, 4) as mesh:
        slot = distribute_tensor(torch.ones(5, 2), mesh, [Replicate()], src_data_rank=None)
        assert own_rows(slot) == (0, 5)


@pytest.mark.parametrize("placement", [Shard(1), Partial()])
def test_other_ways_of_sharing_are_refused(placement):
    with pretended_ranks(0, 2) as mesh:
        slot = from_own_rows(
            torch.ones(4, 2), distribute_tensor(torch.ones(4, 2), mesh, [Replicate()])
        )
        slot = slot.redistribute(mesh, [Shard(1)]) if placement == Shard(1) else slot
        if placement == Partial():
            slot = type(slot).from_local(torch.ones(4, 2), mesh, [Partial()], run_check=False)
        with pytest.raises(WeightsError, match=r"shape \[4, 2\] is placed as .*only rows"):
            own_rows(slot)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_parameter_is_made_of_the_rows_of_a_rank(rank):
    whole = torch.arange(10.0).view(5, 2)
    with pretended_ranks(rank, 3) as mesh:
        with torch.device("meta"):
            layer = nn.Linear(2, 5, bias=False)
        fully_shard(layer, mesh=mesh)
        slot = layer.weight
        assert slot.is_meta
        begin, end = own_rows(slot)
        made = from_own_rows(whole[begin:end], slot)
        assert (made.shape, made.stride()) == (slot.shape, slot.stride())
        assert made.placements == slot.placements
        assert made.device.type == "cpu"
        assert torch.equal(made.to_local(), whole[begin:end])
        turned = from_own_rows(whole.T.contiguous().T[begin:end], slot, torch.device("cpu"))
        assert turned.to_local().is_contiguous()
