import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, distribute_tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from mllm_npu.errors import WeightsError
from mllm_npu.models.lora import LoraRecipe, LoraRecipes, is_adapter, plain_name
from mllm_npu.models.lora_values import initialise_adapters
from mllm_npu.models.tiny import tiny_language_model, tiny_mllm


def make(**changes):
    recipe = {"rank": 2, "alpha": 4.0, "dropout": 0.0, "targets": ["*.q_proj", "*.down_proj"]}
    return LoraRecipe(**(recipe | changes))


def make_both(dora):
    """Updates of language model and vision encoder, each of its own size."""
    vision = make(part="vision_encoder", targets=["*.q_proj", "*.fc1"], rank=3, dora=dora)
    return LoraRecipes(recipes={"words": make(dora=dora), "pictures": vision})


def fill_base(hollow, values):
    """Put the values of a plain model under the updates of one without memory."""
    filled = {}
    for name, slot in list(hollow.named_parameters(remove_duplicate=False)):
        if not is_adapter(name):
            value = nn.Parameter(values[plain_name(name)].clone(), slot.requires_grad)
            holder, _, last = name.rpartition(".")
            setattr(hollow.get_submodule(holder), last, filled.setdefault(id(slot), value))


@pytest.fixture
def ranks():
    """Become one rank after the other, without processes and without exchange."""

    def become(rank, world_size=3):
        if dist.is_initialized():
            dist.destroy_process_group()
        dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world_size)
        return init_device_mesh("cpu", (world_size,))

    yield become
    if dist.is_initialized():
        dist.destroy_process_group()


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_without_memory_becomes_what_a_real_one_is(dora, dtype):
    plain = tiny_mllm().to(dtype)
    values = plain.state_dict()
    make_both(dora).apply(plain)
    with torch.device("meta"):
        hollow = tiny_mllm().to(dtype)
    make_both(dora).apply(hollow)
    assert all(parameter.is_meta for parameter in hollow.parameters())
    fill_base(hollow, values)
    assert initialise_adapters(hollow, 7) == 6
    by_peft = {name: value.clone() for name, value in plain.state_dict().items()}
    initialise_adapters(plain, 7)
    found = dict(hollow.named_parameters())
    assert {n: p.requires_grad for n, p in found.items()} == {
        n: p.requires_grad for n, p in plain.named_parameters()
    }
    for name, parameter in plain.named_parameters():
        assert torch.equal(found[name], parameter), name
        assert found[name].dtype is dtype
        if "lora_A" not in name:  # drawn; everything else is as peft alone has it
            torch.testing.assert_close(parameter, by_peft[name], atol=0, rtol=1e-6)


def test_what_is_drawn_is_spread_as_peft_spreads_it():
    model = nn.ModuleDict({"wide": nn.Linear(4096, 8, bias=False)})
    make(rank=64, targets=["wide"]).apply(model)
    weight = model["wide"].lora_A["default"].weight
    by_peft = weight.detach().clone()
    initialise_adapters(model, 0)
    assert not torch.equal(weight, by_peft)
    assert weight.abs().max() <= 4096**-0.5
    assert weight.std().item() == pytest.approx(by_peft.std().item(), rel=0.01)


def test_first_values_follow_from_seed_and_name():
    def first_values(seed):
        model = tiny_language_model()
        make().apply(model)
        torch.rand(1)  # whatever else is drawn does not matter
        initialise_adapters(model, seed)
        return {n: p for n, p in model.named_parameters() if "lora_A" in n}

    one, again, other = first_values(0), first_values(0), first_values(1)
    assert all(torch.equal(again[name], value) for name, value in one.items())
    assert not any(torch.equal(other[name], value) for name, value in one.items())
    queries = [value for name, value in one.items() if "q_proj" in name]
    assert not torch.equal(*queries)


def test_a_model_without_updates_has_nothing_to_initialise_or_merge():
    assert initialise_adapters(tiny_language_model(), 0) == 0


def test_weights_come_before_first_values():
    with torch.device("meta"):
        model = tiny_language_model()
    make().apply(model)
    with pytest.raises(WeightsError, match=r"self_attn\.q_proj.*load weights first"):
        initialise_adapters(model, 0)


@pytest.mark.parametrize("hollow", [False, True])
def test_every_rank_fills_its_own_rows(ranks, hollow):
    whole = tiny_language_model()
    values = {name: value.clone() for name, value in whole.state_dict().items()}
    make(dora=True).apply(whole)
    initialise_adapters(whole, 3)
    expected = {n: p.detach() for n, p in whole.named_parameters() if is_adapter(n)}
    kept = {name: [] for name in expected}
    for rank in range(3):
        mesh = ranks(rank)
        with torch.device("meta"):
            model = tiny_language_model()
        make(dora=True).apply(model)
        for unit in (*model.sharding_units(), model):
            fully_shard(unit, mesh=mesh)
        if not hollow:
            model.to_empty(device="cpu")
        for name, slot in list(model.named_parameters()):
            if not is_adapter(name):
                holder, _, last = name.rpartition(".")
                value = distribute_tensor(
                    values[plain_name(name)], mesh, slot.placements, src_data_rank=None
                )
                setattr(model.get_submodule(holder), last, nn.Parameter(value, slot.requires_grad))
        assert initialise_adapters(model, 3) == 4
        for name, parameter in model.named_parameters():
            if is_adapter(name):
                assert parameter.requires_grad
                rows = parameter.detach().to_local()
                # Memory of its own, which a checkpoint that is written meanwhile copies.
                own = rows.numel() * rows.element_size()
                assert not hollow or rows.untyped_storage().nbytes() == own
                kept[name].append(copy.deepcopy(parameter.detach()).to_local())
    for name, rows in kept.items():
        assert len({len(part) for part in rows}) > 1  # neither 32, 48 nor 2 rows go into three
        assert torch.equal(torch.cat(rows), expected[name]), name


def test_lengths_that_lie_elsewhere_than_their_rows_are_refused(ranks):
    model = tiny_language_model()
    make(dora=True).apply(model)
    layer = model.causal_lm.model.layers[0].self_attn.q_proj
    fully_shard(layer.base_layer, mesh=ranks(1))
    with pytest.raises(WeightsError, match=r"rows 11 to 22 of its weight and 0 to 32"):
        initialise_adapters(model, 0)


def test_whole_copies_of_a_parameter_are_filled_whole(ranks):
    model = nn.ModuleDict({"one": nn.Linear(4, 4)})
    make(targets=["one"]).apply(model)
    update, mesh = model["one"].lora_A["default"], ranks(2)
    update.weight = nn.Parameter(
        distribute_tensor(update.weight.detach(), mesh, [Replicate()], src_data_rank=None)
    )
    initialise_adapters(model, 0)
    assert update.weight.to_local().shape == (2, 4)
