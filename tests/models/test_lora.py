import pytest
import torch
from torch import nn

from mllm_npu.errors import ConfigError
from mllm_npu.models.lora import LoraRecipe, LoraRecipes, has_lora, is_adapter, merge_lora
from mllm_npu.models.tiny import tiny_batch, tiny_language_model, tiny_mllm
from mllm_npu.train.objectives.mllm import MultimodalObjective

VISION = {"part": "vision_encoder", "targets": ["*.q_proj", "*.fc1"], "rank": 3, "alpha": 3.0}


def make(**changes):
    recipe = {"rank": 2, "alpha": 4.0, "dropout": 0.0, "targets": ["*.q_proj", "*.down_proj"]}
    return LoraRecipe(**(recipe | changes))


def make_both(dora):
    """Updates of language model and vision encoder, each of its own size."""
    return LoraRecipes(recipes={"words": make(dora=dora), "pictures": make(**VISION, dora=dora)})


def put_into(model, recipe):
    recipe.apply(recipe.part_of(model))
    return model


def run(model, embeds):
    length = len(embeds)
    return model(embeds, position_ids_T=torch.arange(length), sequence_ends=(length,))


def train_a_little(model):
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
        elif "magnitude" in name:
            nn.init.uniform_(parameter, 0.5, 1.5)


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


@pytest.mark.parametrize("dora", [False, True])
def test_merging_keeps_the_result_and_gives_the_plain_names_back(dora):
    model, embeds = tiny_language_model().eval(), torch.randn(5, 32)
    names = set(model.state_dict())
    make(dora=dora).apply(model)
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


@pytest.mark.parametrize("dora", [False, True])
def test_several_parts_are_adapted_at_once_and_merged(dora):
    model, batch = tiny_mllm().eval(), tiny_batch(draws=False)
    before, names = model.hidden(batch), set(model.state_dict())
    put_into(model, make_both(dora))
    torch.testing.assert_close(model.hidden(batch), before, atol=1e-5, rtol=1e-4)
    train_a_little(model)
    trained, seen = model.hidden(batch), model.encode_tiles(batch.tiles)
    assert not torch.allclose(trained, before, atol=1e-3)
    assert merge_lora(model) == 4 + 2
    torch.testing.assert_close(model.hidden(batch), trained, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(model.encode_tiles(batch.tiles), seen, atol=1e-5, rtol=1e-4)
    assert set(model.state_dict()) == names


def test_each_part_has_its_own_size_and_names():
    model = tiny_mllm()
    chosen = make_both(dora=True).apply(model)
    assert "language_model.causal_lm.model.layers.0.self_attn.q_proj" in chosen
    assert "vision_encoder.vision_model.encoder.layers.0.mlp.fc1" in chosen
    assert len(chosen) == 6
    shapes = {
        name.partition(".")[0]: parameter.shape[0]
        for name, parameter in model.named_parameters()
        if "lora_A" in name
    }
    assert shapes == {"language_model": 2, "vision_encoder": 3}
    added = {name.rpartition(".default")[0] for name in model.state_dict() if is_adapter(name)}
    kinds = ("lora_A", "lora_B", "lora_magnitude_vector")
    assert added == {f"{name}.{kind}" for name in chosen for kind in kinds}


def test_gradients_reach_updates_and_what_is_trained_beside_them_alone():
    objective = MultimodalObjective(
        model=put_into(tiny_mllm(), make_both(dora=True)), trainable=["*lora_*", "projector.*"]
    )
    train_a_little(objective.model)
    objective.train()(tiny_batch(draws=False)).total({"language": 1.0}).backward()
    moved = {n for n, p in objective.model.named_parameters() if p.grad is not None}
    assert moved == set(objective.trained_parameters())
    assert {n for n in moved if not is_adapter(n)} == {
        n for n, _ in objective.model.named_parameters() if n.startswith("projector.")
    }
    for name in moved:
        assert objective.model.get_parameter(name).grad.abs().sum() > 0, name


def test_only_the_named_layers_are_adapted_not_those_whose_names_end_alike():
    model = nn.ModuleDict({"proj": nn.Linear(4, 4), "a": nn.ModuleDict({"proj": nn.Linear(4, 4)})})
    assert make(targets=["proj"]).apply(model) == ["proj"]
    assert not has_lora(list(model["a"].state_dict()))


def test_layers_that_share_their_weight_or_are_never_called_are_left_alone():
    tied = tiny_language_model()
    assert tied.causal_lm.lm_head.weight is tied.causal_lm.model.embed_tokens.weight
    chosen = make(targets=["*"]).apply(tied)
    assert len(chosen) == 14
    assert not any("lm_head" in name for name in chosen)
    attention = nn.ModuleDict({"attn": nn.MultiheadAttention(4, 2), "out": nn.Linear(4, 4)})
    assert make(targets=["*"]).apply(attention) == ["out"]


def test_recipes_that_overlap_or_are_none_are_refused():
    with pytest.raises(ConfigError, match="without a recipe"):
        LoraRecipes(recipes={})
    inner = make(part="image_decoder.unet")
    for outer in ("image_decoder.unet", "image_decoder"):
        with pytest.raises(ConfigError, match="hold the same layers"):
            LoraRecipes(recipes={"inner": inner, "outer": make(part=outer)})
    LoraRecipes(recipes={"one": make(part="image_decoder.unet2"), "two": inner})


def test_a_part_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match=r"'image_decoder', which .* does not have"):
        put_into(tiny_mllm(), LoraRecipes(recipes={"x": make(part="image_decoder")}))
