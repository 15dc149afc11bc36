import pytest
import torch
import torch.distributed as dist
from launching import launch
from play_mesh import exchange

from mllm_npu.distributed.mesh import Mesh
from mllm_npu.errors import ConfigError

CPU = torch.device("cpu")


def test_a_single_process_needs_no_group(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    mesh = Mesh.start(CPU, timeout_seconds=7.0)
    assert (mesh.rank, mesh.world_size, mesh.is_main) == (0, 1, True)
    assert (mesh.data_rank, mesh.data_size, mesh.timeout_seconds) == (0, 1, 7.0)
    assert mesh.sum({"a": 2, "b": 0.5}) == mesh.sum_open({"a": 2, "b": 0.5}) == {"a": 2, "b": 0.5}
    assert mesh.any(True)
    assert not mesh.any(False)
    assert mesh.from_main(-3) == -3
    weight = torch.ones(2)
    mesh.broadcast([weight])
    mesh.barrier()
    mesh.close()
    assert weight.tolist() == [1.0, 1.0]
    assert not dist.is_initialized()


def test_a_process_alone_gets_a_group_where_sharding_needs_one(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    mesh = Mesh.start(CPU, alone=True)
    try:
        assert dist.is_initialized()
        assert mesh.shards(CPU).size() == mesh.world_size == 1
    finally:
        mesh.close()
    assert not dist.is_initialized()


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    return launch(exchange, size=4, folder=tmp_path_factory.mktemp("mesh"))


def test_host_numbers_add_up_on_every_rank(four):
    for rank, found in enumerate(four):
        assert (found["rank"], found["main"]) == (rank, rank == 0)
        assert found["sum"] == {"a": 10.0, "b": 6.0}
        assert (found["any"], found["none"]) == (True, False)


def test_names_may_differ_between_ranks_and_come_later(four):
    for found in four:
        assert found["open"] == {"all": 4.0, "of 0": 22.0, "of 1": 24.0}
        assert found["open again"] == {"all": 3.0, "of 0": 0.0, "of 1": 0.0}
        assert found["new name"] == {"all": 3.0, "late": 4.0, "of 0": 0.0, "of 1": 0.0}


def test_the_main_rank_gives_numbers_and_tensors(four):
    for found in four:
        assert (found["from main"], found["negative"]) == (100, -2)
        assert found["broadcast"] == [True, [5.0]]


def test_ranks_that_follow_each_other_share_a_sequence_inside_a_replica(four):
    assert [found["data"] for found in four] == [(0, 2), (0, 2), (1, 2), (1, 2)]
    assert [found["sequence"] for found in four] == [[0, 1], [0, 1], [2, 3], [2, 3]]
    assert [found["shards"] for found in four] == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_gradients_are_summed_and_not_averaged(four):
    assert [found["gradient"] for found in four] == [[10.0, 10.0]] * 4


def test_the_last_exchange_is_noted_and_over(four):
    assert [found["progress"] for found in four] == [["barrier", False]] * 4


def test_refuses_a_rank_outside_the_world():
    for rank in (2, -1):
        with pytest.raises(ConfigError, match=f"rank {rank} of 2"):
            Mesh(rank=rank, world_size=2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"replicas": 3}, r"parallel\.replicas=3 was asked for, and 8 processes"),
        ({"replicas": 0}, r"parallel\.replicas=0"),
        ({"sequence_size": 3}, r"parallel\.sequence_size=3 .* divides 8"),
        ({"sequence_size": -2}, r"parallel\.sequence_size=-2"),
        ({"replicas": 4, "sequence_size": 4}, "lie in one replica of 2 ranks"),
    ],
)
def test_refuses_numbers_that_do_not_go_into_each_other(settings, message):
    with pytest.raises(ConfigError, match=message):
        Mesh(rank=0, world_size=8, **settings)


def test_a_start_with_too_few_processes_is_refused_before_anything_is_joined(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match=r"replicas=2 .* 3 processes"):
        Mesh.start(CPU, replicas=2)
    assert not dist.is_initialized()
