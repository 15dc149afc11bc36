import pytest
import torch
from tiny_training import make_objective
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from mllm_npu.distributed.mesh import Mesh
from mllm_npu.distributed.parallel import Parallel
from mllm_npu.distributed.placed import Placed
from mllm_npu.distributed.progress import Progress
from mllm_npu.models.tiny import tiny_batch

CPU = torch.device("cpu")


def place(mesh, *, objective="everything", **settings):
    placed = Parallel(**{"kind": "fsdp2", **settings}).shape(make_objective(objective), mesh, CPU)
    placed.settle()
    return placed


def loss_of(placed, batch=None, *, last=True):
    batch = batch or tiny_batch(seed=1)
    return placed(batch, last=last).total(placed.module.counts(batch))


def shards(placed):
    return [part for part in placed.module.modules() if isinstance(part, FSDPModule)]


@pytest.fixture
def alone():
    return place(Mesh.single(), kind="single")


@pytest.fixture
def sharded(one_rank):
    return place(one_rank)


def test_a_sharded_module_knows_it_and_gives_the_same_loss(alone, sharded):
    assert (alone.is_sharded, sharded.is_sharded) == (False, True)
    assert len(shards(sharded)) > 4
    torch.testing.assert_close(loss_of(sharded), loss_of(alone))


def test_gradients_of_several_packs_add_up(alone, sharded):
    for placed in (alone, sharded):
        for number in range(3):
            loss_of(placed, tiny_batch(seed=number), last=number == 2).backward()
    for name, parameter in alone.module.named_parameters():
        found = sharded.module.get_parameter(name).grad
        if parameter.grad is not None:
            torch.testing.assert_close(found.full_tensor(), parameter.grad, msg=name)


def test_gradients_are_clipped_to_the_norm_over_all_rows(alone, sharded):
    norms = []
    for placed in (alone, sharded):
        loss_of(placed).backward()
        parameters = [p for p in placed.module.parameters() if p.grad is not None]
        norm = placed.clip_gradients(parameters, 0.25)
        assert not isinstance(norm, DTensor)
        assert norm.ndim == 0
        norms.append(norm)
        own = [p.grad.full_tensor() if placed.is_sharded else p.grad for p in parameters]
        clipped = torch.stack([gradient.norm() for gradient in own]).norm()
        assert clipped.item() == pytest.approx(0.25, rel=1e-4)
    torch.testing.assert_close(*norms)
    assert norms[0] > 0.25


def test_matrices_are_multiplied_in_the_compute_dtype(one_rank):
    narrow = place(one_rank, compute_dtype="bfloat16")
    seen = []
    block = narrow.module.model.language_model.sharding_units()[0]
    block.self_attn.q_proj.register_forward_hook(
        lambda layer, given, out: seen.append((layer.weight.dtype, out.dtype))
    )
    loss = loss_of(narrow)
    loss.backward()
    assert seen == [(torch.bfloat16, torch.bfloat16)]
    assert {p.dtype for p in narrow.module.parameters()} == {torch.float32}
    assert {p.grad.dtype for p in narrow.module.parameters() if p.grad is not None} == {
        torch.float32
    }
    assert loss.dtype is torch.float32


def test_autocast_is_off_in_single_precision(alone):
    with alone.autocast():
        assert not torch.is_autocast_enabled("cpu")
    with Placed(
        module=alone.module, mesh=alone.mesh, device=CPU, compute_dtype=torch.bfloat16
    ).autocast():
        assert torch.is_autocast_enabled("cpu")


def test_gathered_parameters_are_whole_and_then_rows_again(sharded):
    encoder = sharded.module.model.vision_encoder
    with sharded.gathered() as module, torch.no_grad():
        assert module is sharded.module
        assert not any(isinstance(p, DTensor) for p in module.parameters())
        # Any part, any number of times, before the whole was ever called.
        one, two = (encoder(tiny_batch(seed=1).tiles) for _ in range(2))
        assert torch.equal(one, two)
    assert all(isinstance(p, DTensor) for p in sharded.module.parameters())
    loss_of(sharded).backward()
    with sharded.gathered():
        pass
    loss_of(sharded).backward()


def test_blocks_are_freed_behind_their_call_as_before(sharded, one_rank):
    freed = [part for part in shards(sharded) if part is not sharded.module]
    with sharded.gathered():
        pass
    loss_of(sharded)
    assert all(isinstance(p, DTensor) for part in freed for p in part.parameters())
    kept = place(one_rank, reshard_after_forward=False)
    with kept.gathered():
        pass
    loss_of(kept)
    block = kept.module.model.language_model.sharding_units()[0]
    assert not any(isinstance(p, DTensor) for p in block.parameters())


def test_a_look_changes_nothing(sharded):
    sharded.module.train()
    sharded.module.model.image_decoder.eval()
    expected = loss_of(sharded)
    with sharded.watched():
        assert not sharded.module.training
        watched = loss_of(sharded)
        assert not watched.requires_grad
    torch.testing.assert_close(watched, expected.detach())
    assert sharded.module.training
    assert not sharded.module.model.image_decoder.training
    assert all(isinstance(p, DTensor) for p in sharded.module.parameters())
    assert all(p.grad is None for p in sharded.module.parameters())
    loss_of(sharded).backward()


def test_a_look_that_fails_leaves_training_on(sharded):
    sharded.module.train()
    with pytest.raises(ZeroDivisionError), sharded.watched():
        raise ZeroDivisionError
    assert sharded.module.training
    loss_of(sharded).backward()


def test_what_waits_for_other_ranks_is_noted_by_block(sharded, monkeypatch):
    noted = []
    monkeypatch.setattr(Progress, "exchange", lambda self, text: noted.append(text))
    loss = loss_of(sharded)
    forward = len(noted)
    loss.backward()
    name = "model.language_model.causal_lm.model.layers.1"
    assert f"gathering of the parameters of {name}" in noted[:forward]
    assert f"backward exchange of {name}" in noted[forward:]
    before = f"gathering of the parameters of {name.replace('layers.1', 'layers.0')}"
    assert noted.index(before) < noted.index(f"gathering of the parameters of {name}")


def test_rows_wait_where_they_are_told_to(one_rank):
    assert place(one_rank).rows_device == CPU
    waiting = Placed(
        module=torch.nn.Linear(1, 1), mesh=one_rank, device=torch.device("meta"), cpu_offload=True
    )
    assert waiting.rows_device == CPU
    assert Placed(
        module=torch.nn.Linear(1, 1), mesh=one_rank, device=torch.device("meta")
    ).rows_device == torch.device("meta")


def test_a_single_process_is_not_replicated():
    placed = place(Mesh.single(), kind="ddp")
    assert not placed.replicated
    assert placed.module.device == CPU
    loss_of(placed).backward()


def test_a_decoder_learns_in_the_compute_dtype(one_rank):
    losses = []
    for kind in ("float32", "bfloat16"):
        placed = place(one_rank, objective="decoder", compute_dtype=kind)
        torch.manual_seed(0)
        loss = loss_of(placed)
        loss.backward()
        assert placed.module.model.image_decoder.null_PV.grad.full_tensor().isfinite().all()
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


class Precise(nn.Module):
    """A layer in the compute dtype, and one that ranks hold whole and that keeps its own."""

    def __init__(self):
        super().__init__()
        self.layer, self.precise = nn.Linear(4, 4), nn.Linear(4, 4).requires_grad_(False)

    def sharding_units(self):
        return []

    def whole_parts(self):
        return [self.precise]

    def compute_on(self, device):
        self.device = device

    def forward(self, values):
        with torch.autocast("cpu", enabled=False):
            kept = self.precise(values)
        return kept, self.layer(values)


def test_a_part_that_keeps_its_dtype_is_whole_on_every_rank(one_rank):
    module = Precise()
    values = torch.randn(3, 4)
    expected = module.precise(values)
    placed = Parallel(kind="fsdp2", compute_dtype="bfloat16").shape(module, one_rank, CPU)
    placed.settle()
    assert isinstance(module.layer.weight, DTensor)
    assert not isinstance(module.precise.weight, DTensor)
    kept, narrow = placed(values)
    assert torch.equal(kept, expected)
    assert narrow.dtype is torch.bfloat16
