import pytest
import torch
from torch import nn

from mllm_npu.errors import ConfigError, TrainingError
from mllm_npu.train.optimizer import (
    AdamW,
    initialise_state,
    optimizer_tensors,
    set_learning_rate,
)


def make_module():
    torch.manual_seed(0)
    return nn.ModuleDict({"encoder": nn.Linear(3, 2), "head": nn.Linear(2, 1)})


def step(module, optimizer):
    module["head"](module["encoder"](torch.ones(1, 3))).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def settings(optimizer):
    return {
        name: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for name in group["param_names"]
    }


def test_groups_follow_the_patterns():
    recipe = AdamW(
        lr=1.0,
        weight_decay=0.1,
        lr_multipliers={"encoder.*": 0.5, "*.bias": 2.0},
        no_decay=["head.weight"],
    )
    assert settings(recipe.build(dict(make_module().named_parameters()))) == {
        "encoder.weight": (0.5, 0.1),
        "encoder.bias": (2.0, 0.0),
        "head.weight": (1.0, 0.0),
        "head.bias": (2.0, 0.0),
    }


def test_rates_of_their_own_and_layers_reach_the_groups():
    blocks = nn.ModuleDict({"blocks": nn.ModuleList(nn.Linear(2, 2) for _ in range(2))})
    parameters = dict(blocks.named_parameters()) | dict(make_module().named_parameters())
    recipe = AdamW(
        lr=1.0,
        weight_decay=0.1,
        learning_rates={"head.*": 1e-3},
        layer_decay={"blocks.*": 0.5},
    )
    rates = {name: lr for name, (lr, _) in settings(recipe.build(parameters)).items()}
    assert (rates["head.weight"], rates["encoder.bias"]) == (1e-3, 1.0)
    assert (rates["blocks.0.weight"], rates["blocks.1.bias"]) == (0.25, 0.5)
    with pytest.raises(ConfigError, match="learning_rates"):
        AdamW(lr=1.0, learning_rates={"nowhere.*": 1.0}).build(parameters)


def test_vectors_decay_only_on_request():
    parameters = dict(make_module().named_parameters())
    optimizer = AdamW(lr=1.0, weight_decay=0.1, decay_vectors=True).build(parameters)
    assert {decay for _, decay in settings(optimizer).values()} == {0.1}


def test_factor_applies_to_the_peak_of_each_group():
    optimizer = AdamW(lr=1.0, lr_multipliers={"head.*": 0.1}).build(
        dict(make_module().named_parameters())
    )
    set_learning_rate(optimizer, 0.5)
    set_learning_rate(optimizer, 0.25)
    rates = {name: lr for name, (lr, _) in settings(optimizer).items()}
    assert rates["encoder.weight"] == pytest.approx(0.25)
    assert rates["head.weight"] == pytest.approx(0.025)


@pytest.mark.parametrize("fused", [True, False])
def test_state_by_name_continues_exactly_even_in_other_groups(fused):
    module, other = make_module(), make_module()
    optimizer = AdamW(lr=0.1, fused=fused).build(dict(module.named_parameters()))
    step(module, optimizer)
    state = {name: tensor.clone() for name, tensor in optimizer_tensors(optimizer).items()}
    assert "exp_avg/encoder.weight" in state
    other.load_state_dict(module.state_dict())
    # The order of the parameters differs, the settings do not.
    names = ["head.bias", "encoder.weight", "head.weight", "encoder.bias"]
    resumed = AdamW(lr=0.1, fused=fused).build({name: other.get_parameter(name) for name in names})
    initialise_state(resumed)
    slots = optimizer_tensors(resumed)
    assert slots.keys() == state.keys()
    for name, slot in slots.items():
        slot.copy_(state[name])
    step(module, optimizer)
    step(other, resumed)
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, other.get_parameter(name))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_made_beforehand_is_what_the_optimizer_makes_itself(fused, dtype):
    modules = [make_module().to(dtype) for _ in range(2)]
    optimizers = [
        AdamW(lr=0.1, fused=fused).build(dict(module.named_parameters())) for module in modules
    ]
    initialise_state(optimizers[0])
    made = optimizer_tensors(optimizers[0])
    assert len(made) == 3 * 4
    assert not any(tensor.any() for tensor in made.values())
    for module, optimizer in zip(modules, optimizers, strict=True):
        for parameter in module.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    one, other = (optimizer_tensors(optimizer) for optimizer in optimizers)
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name])
        assert (tensor.dtype, tensor.device) == (other[name].dtype, other[name].device)
    for name, parameter in modules[0].named_parameters():
        assert torch.equal(parameter, modules[1].get_parameter(name))


def test_state_that_is_there_is_left_alone():
    module = make_module()
    optimizer = AdamW(lr=0.1).build(dict(module.named_parameters()))
    step(module, optimizer)
    before = {name: tensor.clone() for name, tensor in optimizer_tensors(optimizer).items()}
    initialise_state(optimizer)
    assert all(torch.equal(t, before[name]) for name, t in optimizer_tensors(optimizer).items())


def test_a_parameter_without_gradients_keeps_its_weights_and_state():
    module = make_module()
    optimizer = AdamW(lr=0.1, weight_decay=0.5).build(dict(module.named_parameters()))
    initialise_state(optimizer)
    before = module["encoder"].weight.detach().clone()
    module["head"](torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = optimizer_tensors(optimizer)
    assert (state["step/encoder.weight"], state["step/head.weight"]) == (0.0, 1.0)
    assert torch.equal(module["encoder"].weight, before)


def test_refuses_nothing_to_train_and_patterns_without_match():
    with pytest.raises(TrainingError, match="no parameter is trainable"):
        AdamW(lr=0.1).build({})
    with pytest.raises(ConfigError, match="lr_multipliers"):
        AdamW(lr=0.1, lr_multipliers={"projector.*": 1.0}).build(
            dict(make_module().named_parameters())
        )


@pytest.mark.parametrize(
    "change",
    [
        {"lr": -1.0},
        {"lr": float("nan")},
        {"betas": [0.9]},
        {"betas": [0.9, 1.0]},
        {"eps": 0.0},
        {"weight_decay": -0.1},
    ],
)
def test_settings_outside_their_range_are_refused(change):
    with pytest.raises(ConfigError, match=r"AdamW was asked for with lr=.*two betas"):
        AdamW(**{"lr": 1.0, **change})
