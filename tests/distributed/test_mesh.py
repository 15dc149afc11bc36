import json
import subprocess
import sys

import pytest
import torch

from mllm_npu.distributed.mesh import Mesh
from mllm_npu.errors import ConfigError

WORKER = """
import json, sys, torch
from mllm_npu.distributed.mesh import Mesh
mesh = Mesh.from_environment(torch.device("cpu"), timeout_seconds=60)
weight = torch.nn.Parameter(torch.zeros(2)); weight.grad = torch.full((2,), 1.0 + mesh.rank)
bias = torch.nn.Parameter(torch.zeros(1)); bias.grad = torch.full((1,), 10.0)
frozen = torch.nn.Parameter(torch.zeros(1))
mesh.sum_gradients([weight, frozen, bias])
mesh.barrier()
flag, number = torch.tensor(mesh.rank == 0), torch.tensor([mesh.rank + 5.0])
mesh.broadcast([flag, number])
result = {
    "broadcast": [flag.item(), number.item()],
    "rank": mesh.rank, "world_size": mesh.world_size, "main": mesh.is_main,
    "sum": mesh.sum({"b": mesh.rank, "a": 2.5}), "any": mesh.any(mesh.rank == 1),
    "none": mesh.any(False), "weight": weight.grad.tolist(), "bias": bias.grad.tolist(),
}
mesh.close()
open(f"{sys.argv[1]}/{result['rank']}.json", "w").write(json.dumps(result))
"""


def test_a_single_process_needs_no_group(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    mesh = Mesh.from_environment(torch.device("cpu"))
    assert (mesh.rank, mesh.world_size, mesh.is_main) == (0, 1, True)
    assert mesh.sum({"a": 2, "b": 0.5}) == {"a": 2, "b": 0.5}
    assert mesh.any(True)
    assert not mesh.any(False)
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.ones(2)
    mesh.sum_gradients([weight])
    mesh.broadcast([weight])
    mesh.barrier()
    mesh.close()
    assert weight.grad.tolist() == [1.0, 1.0]
    assert not torch.distributed.is_initialized()


@pytest.mark.slow
def test_two_processes_add_up(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(script), str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    results = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    for rank, result in enumerate(results):
        assert result == {
            "rank": rank,
            "world_size": 2,
            "main": rank == 0,
            "sum": {"a": 5.0, "b": 1.0},
            "any": True,
            "none": False,
            "weight": [3.0, 3.0],
            "bias": [20.0],
            "broadcast": [True, 5.0],
        }


def test_refuses_a_rank_outside_the_world():
    with pytest.raises(ConfigError, match="rank 2 of 2"):
        Mesh(rank=2, world_size=2)
