import pytest
import torch
import torch.distributed as dist
from tiny_training import make_objective
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Replicate, Shard

from mllm_npu.distributed.mesh import Mesh
from mllm_npu.distributed.parallel import Parallel
from mllm_npu.errors import ConfigError
from mllm_npu.models.tiny import LANGUAGE_CONFIGS, tiny_batch

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "fsdp"}, r"parallel\.kind='fsdp' was asked for.*single, ddp, fsdp2, hsdp"),
        ({"recompute": "some"}, r"parallel\.recompute='some'.*none, full, selective"),
        ({"compute_dtype": "float64"}, r"compute_dtype='float64'.*auto, float32"),
        ({"master_dtype": "auto"}, r"master_dtype='auto'.*float32, bfloat16, float16"),
        ({"reduce_dtype": "int8"}, r"reduce_dtype='int8'"),
        ({"replicas": 2}, r"replicas=2 was asked for with kind=single.*parallel=hsdp"),
        ({"kind": "fsdp2", "replicas": 2}, r"replicas=2 was asked for with kind=fsdp2"),
        ({"kind": "ddp", "cpu_offload": True}, r"cpu_offload=true was asked for with kind=ddp"),
        ({"timeout_seconds": 0.0}, r"timeout_seconds=0\.0"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Parallel(**{"kind": "single", **settings})


def test_one_kind_is_for_one_process(pretend, monkeypatch):
    pretend(rank=0, world_size=2)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="parallel=single was asked for, and 2 processes"):
        Parallel(kind="single").start(CPU)
    mesh = Parallel(kind="ddp", timeout_seconds=5.0).start(CPU)
    assert (mesh.world_size, mesh.timeout_seconds) == (2, 5.0)


def test_only_sharding_needs_a_group_of_one(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    for kind in ("single", "ddp"):
        assert Parallel(kind=kind).start(CPU).world_size == 1
        assert not dist.is_initialized()
    mesh = Parallel(kind="fsdp2").start(CPU)
    try:
        assert dist.is_initialized()
    finally:
        mesh.close()


def shape(objective, mesh, **settings):
    return Parallel(**{"kind": "fsdp2", **settings}).shape(objective, mesh, CPU)


def units_of(objective):
    return [part for part in objective.modules() if isinstance(part, FSDPModule)]


def test_blocks_are_sharded_one_by_one_and_the_whole_around_them(pretend):
    objective = make_objective("everything")
    blocks = objective.sharding_units()
    shape(objective, pretend())
    assert {id(part) for part in units_of(objective)} == {id(part) for part in [*blocks, objective]}
    for name, parameter in objective.named_parameters():
        assert isinstance(parameter, DTensor), name
        assert parameter.placements == (Shard(0),)


def test_a_part_that_ranks_call_at_will_is_no_unit_of_its_own(pretend):
    objective = make_objective("cached")
    encoder = objective.model.vision_encoder
    assert list(encoder.sharding_units())
    shape(objective, pretend())
    inside = {id(part) for part in encoder.modules()}
    assert not [part for part in units_of(objective) if id(part) in inside]
    assert all(isinstance(p, DTensor) for p in encoder.parameters())


def test_replicas_hold_the_same_rows_and_share_two_groups(pretend):
    mesh = pretend(rank=2, world_size=4, replicas=2)
    objective = make_objective("everything")
    before = len(dist.distributed_c10d._world.pg_map)
    shape(objective, mesh, kind="hsdp", replicas=2)
    assert len(dist.distributed_c10d._world.pg_map) - before <= 2
    weight = objective.model.projector.get_parameter("query")
    assert weight.placements == (Replicate(), Shard(0))
    assert weight.to_local().shape[0] == weight.shape[0] // 2


def test_gradients_are_summed_in_their_own_dtype(pretend):
    objective = make_objective("everything")
    shape(objective, pretend(), compute_dtype="bfloat16", reduce_dtype="bfloat16")
    for part in units_of(objective):
        policy = part._get_fsdp_state()._mp_policy
        assert (policy.param_dtype, policy.reduce_dtype) == (torch.bfloat16, torch.bfloat16)
        assert not policy.cast_forward_inputs


def test_what_is_trained_gets_the_master_dtype_and_what_is_frozen_keeps_its_own():
    objective = make_objective("lora").to(torch.bfloat16)
    shape(objective, Mesh.single(), kind="single", master_dtype="float32")
    for name, parameter in objective.named_parameters():
        expected = torch.float32 if parameter.requires_grad else torch.bfloat16
        assert parameter.dtype is expected, name
    with torch.device("meta"):
        hollow = make_objective("everything")
    shape(hollow, Mesh.single(), kind="single", master_dtype="bfloat16")
    assert {p.dtype for p in hollow.parameters() if p.requires_grad} == {torch.bfloat16}
    assert all(p.is_meta for p in hollow.parameters())


def test_the_compute_dtype_of_a_device_is_its_own_unless_it_is_said():
    assert Parallel(kind="single").compute_dtype_on(CPU) is torch.float32
    named = Parallel(kind="single", compute_dtype="bfloat16")
    assert named.compute_dtype_on(CPU) is torch.bfloat16


def test_blocks_are_recomputed_and_compiled_under_their_names():
    plain, shaped = make_objective("everything"), make_objective("everything")
    shape(shaped, Mesh.single(), kind="single", recompute="full", compile_backend="eager")
    assert shaped.state_dict().keys() == plain.state_dict().keys()
    blocks = shaped.sharding_units()
    assert all(block._compiled_call_impl is not None for block in blocks)
    others = [part for part in shaped.modules() if part not in blocks]
    assert not [part for part in others if part._compiled_call_impl is not None]
    assert all("forward" in vars(block) for block in blocks)
    assert not any("forward" in vars(block) for block in plain.sharding_units())


# The compiler tries what is then warned of.
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_run_gives_the_loss_and_gradients_of_a_plain_one():
    batch, results = tiny_batch(seed=1), []
    for backend in (None, "eager"):
        objective = make_objective("everything")
        placed = shape(objective, Mesh.single(), kind="single", compile_backend=backend)
        placed.settle()
        loss = placed(batch).total(objective.counts(batch))
        loss.backward()
        norm = torch.stack([p.grad.norm() for p in objective.parameters() if p.grad is not None])
        results.append((loss.detach(), norm))
    torch.testing.assert_close(*results)


class Bare(nn.Linear):
    """Has no part that could share a sequence."""

    def sharding_units(self):
        return []


def test_a_sequence_is_shared_by_parts_that_can_or_the_run_is_refused(pretend):
    mesh = pretend(rank=1, world_size=4, sequence_size=2)
    with pytest.raises(ConfigError, match=r"sequence_size=2 .* no part of the model"):
        shape(Bare(1, 1), mesh, kind="ddp", sequence_size=2)
    objective = make_objective("everything")
    shape(objective, mesh, kind="ddp", sequence_size=2)
    exchange = objective.model.language_model._exchange
    assert (exchange.size, exchange.rank) == (2, 1)


def test_a_language_model_that_runs_its_sequences_apart_cannot_share_them(pretend):
    from mllm_npu.models.language_model.huggingface import HuggingFaceLanguageModel

    mesh = pretend(sequence_size=2)
    objective = make_objective("everything")
    objective.model.language_model = HuggingFaceLanguageModel(
        config=LANGUAGE_CONFIGS["llama"], attention="per_sequence"
    )
    with pytest.raises(ConfigError, match="attention=per_sequence, which cannot share"):
        shape(objective, mesh, kind="ddp", sequence_size=2)
