"""Which parts an objective runs, how they are trained, and what each costs per item."""

import pytest
import torch
from torch import nn

from mllm_npu.build import build_model, build_part
from mllm_npu.config import load_config
from mllm_npu.models.language_model.huggingface import HuggingFaceLanguageModel
from mllm_npu.models.tiny import (
    LANGUAGE_CONFIGS,
    tiny_language_model,
    tiny_mllm,
    tiny_seed,
)
from mllm_npu.train.objective_costs import PARTS, find_costs
from mllm_npu.train.objectives.decoder import DecoderObjective
from mllm_npu.train.objectives.mllm import MultimodalObjective
from mllm_npu.train.objectives.objective import Objective
from mllm_npu.train.objectives.vision import VisionObjective

ALL = ["*", "!image_decoder.*"]
LAYERS, WIDTH, KEYS, INNER, VOCABULARY = 2, 32, 16, 48, 64
LINEAR = LAYERS * (2 * WIDTH * WIDTH + 2 * WIDTH * KEYS + 3 * WIDTH * INNER)
"""Weights of the matrices of the tiny Llama: q, o; k, v of half the heads; gate, up, down."""
SEEN = 4 * WIDTH * LAYERS
"""A token that looks at another: one product for the score, one for the value, in each layer."""


def multipliers(parts):
    """Forward and backward over forward, of each part and unit that costs something."""
    return {
        f"{name}/{unit}": cost.total / cost.forward
        for name, terms in parts.items()
        for unit, cost in terms.items()
        if cost.forward
    }


def test_a_llama_costs_six_per_weight_and_token_and_its_attention():
    parts = find_costs(MultimodalObjective(model=tiny_mllm(), trainable=ALL[:1]))
    language, head = parts["language_model"], parts["head"]["targets"]
    assert language["tokens"].forward == 2 * LINEAR
    assert language["tokens"].total == 6 * LINEAR
    assert language["attention"].total == 3 * SEEN
    assert language["calls"].total == 0
    assert head.total == 6 * VOCABULARY * WIDTH
    assert set(parts) == {"vision_encoder", "projector", "language_model", "head"}


def test_a_frozen_part_costs_what_flows_through_it():
    found = multipliers(
        find_costs(MultimodalObjective(model=tiny_seed(), trainable=["projector.*"]))
    )
    assert found == {
        "vision_encoder/tiles": 1.0,  # nothing before it is trained
        "projector/read_tiles": pytest.approx(3, abs=0.3),  # its input needs no gradient
        "language_model/tokens": 2.0,
        "language_model/attention": 3.0,  # two products, each with two inputs
        "head/targets": 2.0,
        "output_projector/drawn": pytest.approx(2, abs=0.2),
    }
    behind = find_costs(MultimodalObjective(model=tiny_seed(), trainable=["output_projector.*"]))
    found = multipliers(behind)
    assert found["language_model/tokens"] == found["head/targets"] == 1.0
    assert 2 < found["output_projector/drawn"] < 3


def test_a_trained_table_or_place_sends_gradients_through_the_language_model():
    for pattern in ("patch_pos_embed", "language_model.*embed_tokens*"):
        parts = find_costs(MultimodalObjective(model=tiny_seed(), trainable=[pattern]))
        assert multipliers(parts)["language_model/tokens"] == 2.0
        assert multipliers(parts)["projector/read_tiles"] == 1.0


def test_a_trained_encoder_sends_gradients_through_all_before_the_loss():
    found = multipliers(find_costs(MultimodalObjective(model=tiny_seed(), trainable=ALL)))
    assert found["projector/read_tiles"] == found["language_model/tokens"] == 3.0
    assert 2.7 < found["vision_encoder/tiles"] < 3  # pixels need no gradient


def test_low_rank_updates_cost_two_for_the_base_and_three_for_themselves():
    from mllm_npu.models.lora import LoraRecipe

    model = tiny_mllm()
    LoraRecipe(rank=2, alpha=2.0, dropout=0.0, targets=["*.mlp.*"]).apply(model.language_model)
    trainable = ["language_model.*lora_*", "projector.*"]
    tokens = find_costs(MultimodalObjective(model=model, trainable=trainable))["language_model"]
    updates = LAYERS * 3 * 2 * (WIDTH + INNER)
    assert tokens["tokens"].forward == 2 * (LINEAR + updates)
    assert tokens["tokens"].total == 2 * (2 * LINEAR + 3 * updates)


def test_in_front_of_an_image_decoder_nothing_is_trained():
    found = multipliers(find_costs(DecoderObjective(model=tiny_seed())))
    assert found.pop("image_decoder/drawn") == pytest.approx(3, abs=0.05)
    assert set(found) == {
        "vision_encoder/tiles",
        "projector/read_tiles",
        "language_model/tokens",
        "language_model/attention",
        "output_projector/drawn",
    }
    assert set(found.values()) == {1.0}
    without = find_costs(DecoderObjective(model=tiny_seed(), predicted_share=0.0))
    assert set(without) == {"vision_encoder", "picture_encoder", "image_decoder"}


def test_a_vision_objective_has_its_own_parts():
    options = {"model": tiny_seed(), "trainable": ["vision_encoder.*"]}
    contrast = VisionObjective(**options, text="contrast", text_tower=tiny_language_model())
    parts = find_costs(contrast)
    assert set(parts) == {"vision_encoder", "text_tower", "contrast", "reconstruction"}
    assert parts["text_tower"]["text_tokens"].total == 6 * LINEAR
    heads = 16 * 16 + 16 * 96 + WIDTH * 96  # scores of 16 tokens, both ways to the common space
    assert parts["contrast"]["pairs"].total == 6 * heads
    assert parts["contrast"]["pair_squares"].total == 6 * 96
    caption = VisionObjective(**options, text="caption", reconstruction_weight=0.0)
    found = multipliers(find_costs(caption))
    assert found["language_model/tokens"] == found["head/targets"] == 2.0
    assert found["output_projector/drawn"] == 1.0  # predicted, and not learnt


class Unknown(Objective):
    def counts(self, batch):
        return {}

    def forward(self, batch):
        raise NotImplementedError

    def prepare(self, batches):
        raise NotImplementedError


def test_an_unknown_objective_has_no_parts():
    assert find_costs(Unknown(model=nn.Sequential(nn.Linear(1, 1)), trainable=["*"])) == {}


@pytest.mark.parametrize(
    ("family", "attention", "active"),
    [
        ({"model_type": "gpt2", "n_embd": 32, "n_layer": 2}, "packed", 24576),
        ({"model_type": "bloom", "hidden_size": 32, "n_layer": 2}, "per_sequence", 24576),
    ],
)
def test_other_families_cost_their_matrices(family, attention, active):
    config = {**family, "n_head": 4, "vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2}
    model = tiny_mllm()
    model.language_model = HuggingFaceLanguageModel(config=config, attention=attention)
    language = find_costs(MultimodalObjective(model=model, trainable=["*"]))["language_model"]
    assert language["tokens"].total == 6 * active
    assert language["attention"].total == 3 * SEEN
    assert not language["tokens"].is_estimated


@pytest.mark.parametrize(
    ("family", "attention", "is_estimated"),
    [
        ({"model_type": "mixtral", "num_local_experts": 2}, "packed", True),
        ({}, "per_sequence", False),
    ],
)
def test_a_family_that_asks_for_values_is_estimated_from_its_weights(
    family, attention, is_estimated
):
    """Which experts a token goes to depends on values."""
    config = {**LANGUAGE_CONFIGS["llama"], "tie_word_embeddings": False, **family}
    model = tiny_mllm()
    model.language_model = HuggingFaceLanguageModel(config=config, attention=attention)
    language = find_costs(MultimodalObjective(model=model, trainable=["*"]))["language_model"]
    experts = LAYERS * (3 * WIDTH * INNER + 2 * WIDTH) if family else 0
    costs = [cost for unit, cost in language.items() if unit != "calls"]
    assert all(cost.is_estimated == is_estimated for cost in costs)
    assert language["tokens"].total == 6 * (LINEAR + experts)
    assert language["attention"].total == 3 * SEEN


def test_a_language_model_without_attention_costs_nothing_for_what_it_sees():
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 64, "bos_token_id": 1}
    model = tiny_mllm()
    model.language_model = HuggingFaceLanguageModel(
        config={**sizes, "model_type": "mamba", "eos_token_id": 2}, attention="per_sequence"
    )
    language = find_costs(MultimodalObjective(model=model, trainable=["*"]))["language_model"]
    matrices = sum(
        weight.numel()
        for name, weight in model.language_model.named_parameters()
        if weight.dim() > 1 and "embed" not in name and "A_log" not in name
    )
    assert language["tokens"].total == pytest.approx(6 * matrices, rel=0.15)
    assert language["attention"].total == 0
    assert not language["tokens"].is_estimated


FEWER = ["models.vision_encoder.num_layers=2"]
"""Blocks that are all alike, left out so that the test takes less time."""
SEEDX = ["models=seedx_llama2_13b_qwenvl_vit", "processor=seedx", *FEWER]
DETOKENIZER = ["models=detokenizer_sdxl", "processor=detokenizer", *FEWER]
SHIPPED = {
    "digits": [],
    "contrast": ["objective=vision_contrast"],
    "caption": ["objective=vision_caption"],
    "decoder": ["objective=decoder"],
    "scenes": ["models=seed_scenes"],
    "mllm_tiny": ["models=mllm_tiny", "objective=comprehension"],
    "seedx": [
        *SEEDX,
        "models.language_model.config.num_hidden_layers=2",
        "objective=seedx",
        "+lora=seedx",
    ],
    "detokenizer": [*DETOKENIZER, "objective=detokenizer"],
    "editing": ["experiment=detokenizer/tiny_edit"],
}


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_model_is_counted_part_by_part(name):
    """On meta, whatever its size: no part is estimated."""
    config = load_config("training", SHIPPED[name])
    with torch.device("meta"):
        model = build_model(config)
        if config.lora is not None:
            recipe = build_part(config.lora)
            recipe.apply(recipe.part_of(model))
        objective = build_part(config.objective, model=model)
    parts = find_costs(objective)
    assert list(parts) == [part for part in PARTS if part in parts]
    costs = [cost for terms in parts.values() for cost in terms.values()]
    assert not any(cost.is_estimated for cost in costs)
    free = {"language_model/calls", "text_tower/calls", "picture_encoder/pictures"}
    named = {f"{part}/{unit}" for part, terms in parts.items() for unit in terms}
    assert named - set(multipliers(parts)) <= free
    assert any(cost.backward > 0 for cost in costs)


def test_stand_ins_of_a_model_are_counted(make_model):
    parts = find_costs(MultimodalObjective(model=make_model(), trainable=["*"]))
    assert parts["vision_encoder"]["tiles"].forward == 2 * 4 * 12 * 6
    assert parts["language_model"]["tokens"].total == 6 * 8 * 8
    assert parts["language_model"]["attention"].total == 0
