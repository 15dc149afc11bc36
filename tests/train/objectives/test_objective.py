import pytest
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


def test_device_is_where_the_parameters_are(make_model):
    objective = Plain(model=make_model(), trainable=["*"])
    assert objective.device.type == "cpu"
    assert objective.to("meta").device.type == "meta"
