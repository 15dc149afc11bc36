"""Every value of a model has its name on the Hub, and only those of LLaVA models have one."""

import pytest
import torch
from torch import nn

from mllm_npu.errors import WeightsError
from mllm_npu.models.weight_layouts import translate
from mllm_npu.zoo.llava_names import hub_names, memory_name, require_values, untied_values

OURS = (
    "vision_encoder.vision_model.embeddings.class_embedding",
    "projector.mlp.0.weight",
    "projector.mlp.2.bias",
    "language_model.causal_lm.model.norm.weight",
    "language_model.causal_lm.lm_head.weight",
    "newline",
)
HUB = (
    "vision_tower.vision_model.embeddings.class_embedding",
    "multi_modal_projector.linear_1.weight",
    "multi_modal_projector.linear_2.bias",
    "language_model.model.norm.weight",
    "language_model.lm_head.weight",
    "image_newline",
)


def test_names_go_there_and_come_back():
    assert hub_names(OURS) == dict(zip(OURS, HUB, strict=True))
    for keys in (HUB, tuple(map(memory_name, HUB))):
        back = translate(keys, OURS)
        assert [back[key].name for key in keys] == list(OURS)
        assert {place.role for place in back.values()} == {"value"}


def test_older_names_without_the_inner_model_come_in_too():
    key = "vision_tower.embeddings.class_embedding"
    assert translate([key], OURS)[key].name == OURS[0]


def test_a_value_that_no_such_model_has_is_named():
    with pytest.raises(WeightsError, match=r"projector\.mlp\.4\.weight.*norm=False"):
        hub_names([*OURS, "projector.mlp.4.weight"])


def test_values_must_be_exactly_those_that_are_wanted():
    found = {"language_model.lm_head.weight": torch.zeros(3, 2), "image_newline": torch.zeros(2)}
    wanted = {"lm_head.weight": torch.zeros(3, 2), "model.image_newline": torch.zeros(2)}
    require_values(found, wanted)
    with pytest.raises(WeightsError, match=r"1 missing \(model\.extra\)"):
        require_values(found, {**wanted, "model.extra": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"1 that it lacks \(model\.image_newline\)"):
        require_values(found, {"lm_head.weight": wanted["lm_head.weight"]})
    with pytest.raises(WeightsError, match=r"1 of another shape \(lm_head\.weight\)"):
        require_values(found, {**wanted, "lm_head.weight": torch.zeros(4, 2)})


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_value_of_two_names_stands_under_the_first(device):
    with torch.device(device):
        model = nn.Sequential(nn.Embedding(4, 2), nn.Linear(2, 4, bias=False))
    model[1].weight = model[0].weight
    assert list(untied_values(model)) == ["0.weight"]
