import pytest
import torch
from torch import nn

from mllm_npu.errors import ConfigError
from mllm_npu.train.objectives.objective import Objective, is_trained


class Plain(Objective):
    def __init__(self, *, model, trainable):
        super().__init__(model=model, trainable=trainable)
        self.head = nn.Linear(1, 1)

    def counts(self, batch):
        return {}

    def forward(self, batch):
        raise NotImplementedError

    def prepare(self, batches):
        pass


def test_trains_what_the_patterns_say_and_its_own_head(make_model):
    objective = Plain(model=make_model(), trainable=["projector.*", "language_model.table.*"])
    assert set(objective.trained_parameters()) == {
        "projector.weight",
        "projector.bias",
        "language_model.table.weight",
        "head.weight",
        "head.bias",
    }


def test_frozen_parts_stay_in_evaluation_mode(make_model):
    objective = Plain(model=make_model(), trainable=["projector.*"]).train()
    assert objective.training
    assert objective.head.training
    assert objective.model.projector.training
    assert not objective.model.language_model.dropout.training
    Plain(model=objective.model, trainable=["language_model.*"]).train()
    assert objective.model.language_model.dropout.training
    assert not objective.model.projector.training
    assert not objective.eval().head.training


def test_a_pattern_without_a_match_is_an_error(make_model):
    with pytest.raises(ConfigError, match="matches no parameter"):
        Plain(model=make_model(), trainable=["resampler.*"])


def test_is_trained_looks_at_every_parameter():
    layer = nn.Linear(1, 1)
    assert is_trained(layer)
    layer.weight.requires_grad_(False)
    assert is_trained(layer)
    assert not is_trained(layer.requires_grad_(False))


def test_blocks_are_those_of_all_parts_in_the_order_they_are_called(
    make_model, make_language_model
):
    model = make_model()
    objective = Plain(model=model, trainable=["*"])
    objective.tower = make_language_model()
    assert objective.sharding_units() == [
        model.vision_encoder.layer,
        model.language_model.layer,
        model.image_decoder.layer,
        objective.tower.layer,
    ]


def test_what_ranks_call_at_will_has_no_blocks(make_model):
    class AtWill(Plain):
        def parts_called_at_will(self):
            return (self.model.vision_encoder,)

    model = make_model()
    objective = AtWill(model=model, trainable=["*"])
    assert objective.sharding_units() == [model.language_model.layer, model.image_decoder.layer]
    assert Plain(model=model, trainable=["*"]).parts_called_at_will() == ()


def test_it_computes_where_it_is_told_to_while_parameters_wait_elsewhere(make_model):
    objective = Plain(model=make_model(), trainable=["*"])
    objective.compute_on(torch.device("meta"))
    assert objective.device.type == "meta"
    assert {p.device.type for p in objective.parameters()} == {"cpu"}


def test_device_is_where_the_parameters_are(make_model):
    objective = Plain(model=make_model(), trainable=["*"])
    assert objective.device.type == "cpu"
    assert objective.to("meta").device.type == "meta"
