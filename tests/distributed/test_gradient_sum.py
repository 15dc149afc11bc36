import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mllm_npu.distributed.gradient_sum import sum_bucket
from mllm_npu.distributed.mesh import Mesh


def test_a_bucket_comes_back_as_it_is_on_one_rank(monkeypatch):
    """What several ranks add up to is tested in test_mesh and test_ranks_of_training."""
    monkeypatch.delenv("RANK", raising=False)
    mesh = Mesh.start(torch.device("cpu"), alone=True)
    try:
        layer, plain = nn.Linear(3, 2), nn.Linear(3, 2)
        plain.load_state_dict(layer.state_dict())
        call = DistributedDataParallel(layer)
        call.register_comm_hook(None, sum_bucket)
        given = torch.randn(4, 3)
        for module in (call, plain):
            module(given).square().sum().backward()
        assert torch.equal(layer.weight.grad, plain.weight.grad)
        assert torch.equal(layer.bias.grad, plain.bias.grad)
    finally:
        mesh.close()
    assert not dist.is_initialized()


def test_its_annotations_are_types_because_they_are_looked_at_when_it_is_registered():
    assert sum_bucket.__annotations__["bucket"] is dist.GradBucket
