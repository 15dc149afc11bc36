import pytest
from torch import nn

from mllm_npu.errors import ConfigError
from mllm_npu.models.lora import LoraRecipe
from mllm_npu.train.trainable import match_names, set_trainable


@pytest.fixture
def module():
    return nn.ModuleDict({"encoder": nn.Linear(2, 2), "head": nn.Linear(2, 2)})


def test_the_last_pattern_that_matches_decides(module):
    assert set_trainable(module, ["*", "!encoder.*", "encoder.bias"]) == [
        "encoder.bias",
        "head.weight",
        "head.bias",
    ]
    assert not module["encoder"].weight.requires_grad
    assert module["encoder"].bias.requires_grad


def test_no_pattern_freezes_everything(module):
    assert set_trainable(module, []) == []
    assert not any(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize("pattern", ["decoder.*", "!decoder.*", "encoder"])
def test_a_pattern_without_a_match_is_named(module, pattern):
    with pytest.raises(ConfigError, match=r"matches no parameter.*encoder"):
        set_trainable(module, ["*", pattern])


def test_star_covers_dots():
    assert match_names(["a.b.c", "a.d"], "a*c", what="test") == ["a.b.c"]


def test_a_weight_under_an_update_is_trained_only_where_it_is_named(module):
    LoraRecipe(rank=1, alpha=1.0, dropout=0.0, targets=["encoder"]).apply(module)
    updates = ["encoder.lora_A.default.weight", "encoder.lora_B.default.weight"]
    assert set_trainable(module, ["encoder.*"]) == updates
    assert set_trainable(module, ["*"]) == [*updates, "head.weight", "head.bias"]
    under = ["encoder.base_layer.weight", "encoder.base_layer.bias"]
    assert set_trainable(module, ["*.base_layer.*"]) == under
    assert set_trainable(module, ["*.base_layer.*", "!*.bias"]) == under[:1]
