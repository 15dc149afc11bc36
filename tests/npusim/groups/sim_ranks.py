"""Two ranks with a simulated NPU each: collectives and their rules, sharding, checkpoints."""

import datetime
import os
import sys
import time
import traceback
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.nn.functional as F
import torch_npu
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

RANK, SIZE = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
FOLDER = Path(sys.argv[1])
STEPS = 3


def filled(value, *shape, dtype=torch.float32):
    return torch.full(shape or (4,), value, device="npu", dtype=dtype)


def refused(words, call):
    """Every rank is refused, before anything is sent."""
    with pytest.raises(RuntimeError, match=words):
        call()


# Collectives.


def check_sums():
    for dtype in (torch.float32, torch.bfloat16, torch.int64, torch.int32, torch.int8):
        tensor = filled(RANK + 1, dtype=dtype)
        dist.all_reduce(tensor)
        assert tensor.is_npu
        assert tensor.tolist() == [3] * 4, (dtype, tensor)
    tensor = filled(RANK + 1.0, dtype=torch.bfloat16)
    dist.all_reduce(tensor, op=dist.ReduceOp.AVG)
    assert tensor.tolist() == [1.5] * 4
    tensor = filled(bool(RANK), dtype=torch.bool)
    dist.all_reduce(tensor)
    assert tensor.all()
    tensor = filled(RANK + 1.0)
    dist.reduce(tensor, 1, op=dist.ReduceOp.MAX)
    assert RANK == 0 or tensor.tolist() == [2] * 4


def check_asynchronous_sum():
    tensor = filled(RANK + 1.0)
    work = dist.all_reduce(tensor, async_op=True)
    (result,) = work.get_future().wait()
    work.wait()
    assert work.is_completed()
    assert result.data_ptr() == tensor.data_ptr()
    assert result.is_npu
    assert tensor.tolist() == [3] * 4


def check_gathering():
    gathered = torch.empty(2 * SIZE, device="npu")
    dist.all_gather_single(gathered, filled(float(RANK), 2))
    assert gathered.tolist() == [0, 0, 1, 1]
    parts = [torch.empty(2, device="npu", dtype=torch.uint8) for _ in range(SIZE)]
    dist.all_gather(parts, filled(RANK, 2, dtype=torch.uint8))
    assert torch.cat(parts).tolist() == [0, 0, 1, 1]
    parts = [torch.empty(2, device="npu") for _ in range(SIZE)] if RANK == 0 else None
    dist.gather(filled(float(RANK), 2), parts)
    assert RANK or torch.cat(parts).tolist() == [0, 0, 1, 1]


def check_scattering():
    result = torch.empty(2, device="npu")
    dist.reduce_scatter_single(result, torch.arange(4.0, device="npu"))
    assert result.tolist() == [[0, 2], [4, 6]][RANK]
    dist.reduce_scatter_single(result, torch.arange(4.0, device="npu"), op=dist.ReduceOp.AVG)
    assert result.tolist() == [[0, 1], [2, 3]][RANK]
    dist.reduce_scatter(result, [filled(1.0, 2), filled(2.0, 2)])
    assert result.tolist() == [2 * (RANK + 1)] * 2
    parts = [filled(5.0, 2), filled(6.0, 2)] if RANK == 0 else None
    dist.scatter(result, parts)
    assert result.tolist() == [5 + RANK] * 2
    tensor = filled(float(RANK))
    dist.broadcast(tensor, 1)
    assert tensor.tolist() == [1] * 4


def check_exchanging():
    result = torch.empty(2 * SIZE, device="npu")
    dist.all_to_all_single(result, torch.arange(4.0, device="npu") + 10 * RANK)
    assert result.tolist() == [[0, 1, 10, 11], [2, 3, 12, 13]][RANK]
    sizes = [RANK + 1] * SIZE
    result = torch.empty(3, device="npu")
    dist.all_to_all_single(result, filled(float(RANK), 2 * (RANK + 1)), [1, 2], sizes)
    assert result.tolist() == [0, 1, 1]
    received = [torch.empty(1, 2, device="npu") for _ in range(SIZE)]
    dist.all_to_all(received, [filled(float(10 * RANK + peer), 1, 2) for peer in range(SIZE)])
    assert torch.cat(received).tolist() == [[RANK, RANK], [10 + RANK, 10 + RANK]]


def check_sending():
    tensor = filled(7.0) if RANK == 0 else filled(0.0)
    if RANK == 0:
        dist.send(tensor, 1)
    else:
        dist.recv(tensor, 0)
    assert tensor.tolist() == [7] * 4
    received = filled(0.0)
    peer = 1 - RANK
    works = dist.batch_isend_irecv(
        [
            dist.P2POp(dist.isend, filled(float(RANK)), peer),
            dist.P2POp(dist.irecv, received, peer),
        ]
    )
    for work in works:
        work.wait()
    assert received.tolist() == [peer] * 4


def check_objects_and_host_tensors():
    gathered = [None] * SIZE
    dist.all_gather_object(gathered, {"rank": RANK})
    assert gathered == [{"rank": 0}, {"rank": 1}]
    tensor = torch.ones(())
    dist.all_reduce(tensor)
    assert tensor.item() == SIZE
    dist.barrier()


def check_rules():
    torch_npu.simulation.forbid_float64(False)
    for dtype in (torch.uint8, torch.float64):
        refused(
            "Unsupported data type for HCCL",
            lambda dtype=dtype: dist.all_reduce(filled(1, dtype=dtype)),
        )
    for operation in (dist.ReduceOp.BAND, dist.ReduceOp.BXOR):
        refused(
            "Unsupported HCCL reduce operation",
            lambda operation=operation: dist.all_reduce(filled(1, dtype=torch.int32), op=operation),
        )
    refused("does not support recvAnysource", lambda: dist.recv(filled(1.0)))
    scalars = [torch.zeros((), device="npu") for _ in range(SIZE)]
    refused("without dimensions", lambda: dist.all_to_all(scalars, scalars))


def check_traffic_is_counted():
    torch_npu.simulation.stats(reset=True)
    dist.all_reduce(filled(1.0, 256))
    done = torch_npu.simulation.stats()
    assert done.collective_calls == {"all_reduce": 1}
    assert done.collective_bytes == {"all_reduce": 1024}
    assert done.syncs == {}


# Sharding.


def make_model():
    torch.manual_seed(0)
    blocks = [
        nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32), nn.LayerNorm(32))
        for _ in range(3)
    ]
    return nn.Sequential(nn.Embedding(64, 32), *blocks, nn.Linear(32, 64))


def shard(model, mesh, **settings):
    for block in list(model)[1:4]:
        fully_shard(block, mesh=mesh, **settings)
    return fully_shard(model, mesh=mesh, **settings)


def train(model, optimizer=None, steps=STEPS):
    """Losses averaged over the ranks, and the optimizer."""
    ids = torch.arange(32, device="npu").view(2, 16) + RANK
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(model(ids).float().flatten(0, 1), ids.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    mean = torch.stack(losses)
    dist.all_reduce(mean, op=dist.ReduceOp.AVG)
    return mean.tolist(), optimizer


def expected():
    """The losses of data parallel training on the CPU."""
    model = nn.parallel.DistributedDataParallel(make_model())
    ids = [torch.arange(32).view(2, 16) + rank for rank in range(SIZE)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(STEPS):
        loss = F.cross_entropy(model(ids[RANK]).flatten(0, 1), ids[RANK].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    mean = torch.stack(losses)
    dist.all_reduce(mean)
    return (mean / SIZE).tolist()


def near(ours, theirs, share=1e-4):
    assert all(abs(a - b) <= share * abs(b) for a, b in zip(ours, theirs, strict=True)), (
        ours,
        theirs,
    )


def mesh_of(*sizes):
    return init_device_mesh("npu", sizes, mesh_dim_names=("replicate", "shard")[-len(sizes) :])


def check_data_parallel():
    model = nn.parallel.DistributedDataParallel(make_model().to("npu"))
    near(train(model)[0], expected())


def check_sharded_float32():
    near(train(shard(make_model().to("npu"), mesh_of(SIZE)))[0], expected())


def check_sharded_bfloat16():
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    model = shard(make_model().to("npu"), mesh_of(SIZE), mp_policy=policy)
    torch_npu.simulation.stats(reset=True)
    near(train(model)[0], expected(), share=2e-2)
    calls = torch_npu.simulation.stats().collective_calls
    assert calls["all_gather_into_tensor"] >= 4 * STEPS
    assert calls["reduce_scatter_tensor"] == 4 * STEPS


def check_built_without_values():
    with torch.device("meta"):
        model = make_model()
    model = shard(model, mesh_of(SIZE))
    model.to_empty(device="npu")
    torch.manual_seed(0)
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    losses, _ = train(model)
    assert losses[-1] < losses[0]


def check_offloaded_to_the_host():
    model = shard(make_model(), mesh_of(SIZE), offload_policy=CPUOffloadPolicy())
    near(train(model)[0], expected())
    assert next(model.parameters()).device.type == "cpu"


def check_replicated_shards():
    model = shard(make_model().to("npu"), mesh_of(1, SIZE))
    near(train(model)[0], expected())
    model = shard(make_model().to("npu"), mesh_of(SIZE, 1))
    near(train(model)[0], expected())


def check_split_layers():
    block, mesh = make_model()[1].to("npu"), mesh_of(SIZE)
    tensor = torch.randn(4, 32, device="npu", generator=torch.Generator("npu").manual_seed(3))
    whole = block(tensor)
    parallelize_module(block, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})
    torch.testing.assert_close(block(tensor), whole)


def check_checkpoints():
    model = shard(make_model().to("npu"), mesh_of(SIZE))
    _, optimizer = train(model)
    saved = dict(zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True))
    dcp.save(saved, checkpoint_id=FOLDER / "checkpoint")
    continued, _ = train(model, optimizer, 2)
    other = shard(make_model().to("npu"), mesh_of(SIZE))
    fresh = torch.optim.AdamW(other.parameters(), lr=1e-2)
    state = dict(zip(("model", "optimizer"), get_state_dict(other, fresh), strict=True))
    dcp.load(state, checkpoint_id=FOLDER / "checkpoint")
    set_state_dict(
        other,
        fresh,
        model_state_dict=state["model"],
        optim_state_dict=state["optimizer"],
    )
    assert train(other, fresh, 2)[0] == continued
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    whole = get_model_state_dict(other, options=options)
    assert RANK or all(tensor.device.type == "cpu" for tensor in whole.values())


def main():
    torch.set_num_threads(1)
    torch.npu.set_device(RANK)
    dist.init_process_group("cpu:gloo,npu:hccl", timeout=datetime.timedelta(seconds=60))
    for name, check in sorted(globals().items()):
        if name.startswith("check_"):
            begin = time.perf_counter()
            check()
            if RANK == 0:
                sys.stdout.write(f"{name} {time.perf_counter() - begin:.2f} s\n")
    dist.barrier()


if __name__ == "__main__":
    code = 1
    try:
        main()
        code = 0
    except Exception:  # noqa: BLE001 - the other rank must not wait for this one
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    # Without the interpreter's own end, which gloo's threads do not always survive.
    os._exit(code)
