import pytest
import torch
from torch import nn

from mllm_npu.errors import ConfigError
from mllm_npu.models.lora import LoraRecipe, has_lora, merge_lora
from mllm_npu.models.tiny import tiny_language_model


def make(**changes):
    recipe = {"rank": 2, "alpha": 4.0, "dropout": 0.0, "targets": ["*.q_proj", "*.down_proj"]}
    return LoraRecipe(**(recipe | changes))


def run(model, embeds):
    length = len(embeds)
    return model(embeds, position_ids_T=torch.arange(length), sequence_ends=(length,))


def train_a_little(model):
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)


def test_only_the_updates_of_the_chosen_layers_are_trained():
    model = tiny_language_model()
    chosen = make().apply(model)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert len(chosen) == 4
    assert {name.rpartition(".")[2] for name in chosen} == {"q_proj", "down_proj"}
    assert trained
    assert all(".lora_" in name for name in trained)
    assert has_lora(list(model.state_dict()))


def test_a_fresh_update_changes_nothing_and_a_trained_one_does():
    model, embeds = tiny_language_model().eval(), torch.randn(5, 32)
    before = run(model, embeds)
    make().apply(model)
    assert torch.equal(run(model, embeds), before)
    train_a_little(model)
    assert not torch.allclose(run(model, embeds), before, atol=1e-4)


def test_merging_keeps_the_result_and_gives_the_plain_names_back():
    model, embeds = tiny_language_model().eval(), torch.randn(5, 32)
    names = set(model.state_dict())
    make().apply(model)
    train_a_little(model)
    adapted = run(model, embeds)
    assert merge_lora(model) == 4
    torch.testing.assert_close(run(model, embeds), adapted, atol=1e-5, rtol=1e-4)
    assert set(model.state_dict()) == names
    assert merge_lora(model) == 0


def test_a_pattern_may_choose_single_layers():
    model = tiny_language_model()
    assert make(targets=["*.layers.1.*.v_proj"]).apply(model) == [
        "causal_lm.model.layers.1.self_attn.v_proj"
    ]


def test_a_pattern_without_a_layer_is_refused_and_names_what_there_is():
    with pytest.raises(ConfigError, match=r"'\*\.query' matches none.*q_proj"):
        make(targets=["*.query"]).apply(tiny_language_model())


def test_updates_on_updates_are_refused():
    model = tiny_language_model()
    make().apply(model)
    with pytest.raises(ConfigError, match="merge them first"):
        make().apply(model)


@pytest.mark.parametrize("changes", [{"rank": 0}, {"alpha": 0}, {"dropout": 1.0}, {"targets": []}])
def test_recipes_that_make_no_sense_are_refused(changes):
    with pytest.raises(ConfigError, match="LoRA was asked for"):
        make(**changes)
