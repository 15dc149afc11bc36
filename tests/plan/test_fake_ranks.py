"""One process stands for any number of ranks."""

import pytest
import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode

from mllm_npu.distributed.parallel import Parallel
from mllm_npu.errors import ConfigError
from mllm_npu.plan.fake_ranks import fake_ranks

CPU = torch.device("cpu")


def test_rank_0_of_many_and_nothing_stays_behind():
    with fake_ranks(Parallel(kind="hsdp", replicas=4, sequence_size=2), 512) as mesh:
        assert (mesh.rank, mesh.world_size, mesh.data_size) == (0, 512, 256)
        with FakeTensorMode():
            assert mesh.shards(CPU).shape == (4, 128)
            assert mesh.sequence_group(CPU).size() == 2
        value = torch.ones(3)
        dist.all_reduce(value)
    assert value.tolist() == [1, 1, 1]
    assert not dist.is_initialized()


def test_one_rank_needs_no_group_unless_it_shards():
    with fake_ranks(Parallel(kind="single"), 1):
        assert not dist.is_initialized()
    with fake_ranks(Parallel(kind="fsdp2"), 1):
        assert dist.is_initialized()
    assert not dist.is_initialized()


@pytest.mark.parametrize(
    ("settings", "ranks", "said"),
    [
        ({"kind": "single"}, 4, "parallel=single"),
        ({"kind": "hsdp", "replicas": 3}, 64, "replicas=3"),
        ({"kind": "fsdp2", "sequence_size": 5}, 64, "sequence_size=5"),
        ({"kind": "fsdp2"}, 0, "0 processes"),
    ],
)
def test_ranks_that_do_not_fit(settings, ranks, said):
    with pytest.raises(ConfigError, match=said), fake_ranks(Parallel(**settings), ranks):
        pass
    assert not dist.is_initialized()


def test_not_inside_real_ranks():
    with (
        fake_ranks(Parallel(kind="fsdp2"), 2),
        pytest.raises(ConfigError, match="process of its own"),
        fake_ranks(Parallel(kind="fsdp2"), 2),
    ):
        pass
