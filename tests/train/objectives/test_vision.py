import pytest
import torch

from mllm_npu.errors import ConfigError
from mllm_npu.train.objectives.vision import VisionObjective


@pytest.fixture
def make(make_model, make_language_model):
    def make_objective(text, **options):
        model = make_model()
        if text == "contrast":
            options.setdefault("text_tower", make_language_model())
        trainable = {
            "contrast": ["vision_encoder.*"],
            "caption": ["vision_encoder.*", "projector.*", "language_model.*"],
        }
        return VisionObjective(model=model, trainable=trainable[text], text=text, **options)

    return make_objective


@pytest.mark.parametrize("text", ["contrast", "caption"])
@pytest.mark.parametrize("kinds", ["rdr2", "rrb", "db", "b"])
def test_counts_are_those_behind_the_terms(make, make_batch, text, kinds):
    objective, batch = make(text), make_batch(kinds)
    losses = objective(batch)
    found = {name: term.count for name, term in losses.terms.items()}
    assert found == objective.counts(batch)
    assert set(found) == {{"caption": "language"}.get(text, text), "reconstruction"}
    losses.total(objective.counts(batch)).backward()
    assert objective.model.vision_encoder.layer.weight.grad is not None


def test_weights_go_into_the_terms(make, make_batch):
    batch = make_batch("rrd")
    losses = make("contrast", text_weight=0.5, reconstruction_weight=3.0)(batch)
    assert losses.terms["contrast"].weight == 0.5
    assert losses.terms["reconstruction"].weight == 3.0
    assert set(make("caption", reconstruction_weight=0.0)(batch).terms) == {"language"}


def test_the_blank_tile_adds_nothing_to_the_reconstruction(make, make_batch):
    objective = make("contrast").eval()
    alone, with_blank = make_batch("rd", seed=3), make_batch("rdb", seed=3)
    expected = objective(alone).terms["reconstruction"]
    found = objective(with_blank).terms["reconstruction"]
    torch.testing.assert_close(found.total, expected.total)
    assert found.count == expected.count == 2


def test_only_the_encoder_and_the_heads_are_trained_by_contrast(make):
    names = set(make("contrast").trained_parameters())
    assert {name.split(".")[0] for name in names} == {
        "vision_encoder",
        "contrast",
        "reconstruction",
    }
    assert any(name.startswith("contrast.text_tower.") for name in names)


def test_caption_reports_the_loss_of_each_target(make, make_batch):
    losses = make("caption")(make_batch("rr"))
    assert losses.per_target.shape == (6,)


def test_both_losses_fall(make, make_batch):
    objective = make("contrast")
    batch = make_batch("rrrr", texts={0: [2], 1: [3], 2: [4], 3: [5]})
    optimizer = torch.optim.Adam(objective.trained_parameters().values(), 1e-2)
    history = []
    for _ in range(60):
        losses = objective(batch)
        optimizer.zero_grad()
        losses.total(objective.counts(batch)).backward()
        optimizer.step()
        history.append({name: term.total.item() for name, term in losses.terms.items()})
    assert history[-1]["contrast"] < 0.5 * history[0]["contrast"]
    assert history[-1]["reconstruction"] < 0.8 * history[0]["reconstruction"]


def test_the_text_tower_has_blocks_and_every_rank_calls_them(make):
    objective = make("contrast")
    assert objective.parts_called_at_will() == ()
    units = objective.sharding_units()
    assert units[0] is objective.model.vision_encoder.layer
    assert units[-1] is objective.contrast.text_tower.layer
    assert len(units) == 4


def test_prepare_takes_no_batch(make):
    make("caption").prepare(iter(()))


def test_text_tower_and_kind_of_text_must_go_together(make, make_model, make_language_model):
    with pytest.raises(ConfigError, match=r"text='caption'.*with a text_tower"):
        make("caption", text_tower=make_language_model())
    with pytest.raises(ConfigError, match="without a text_tower"):
        make("contrast", text_tower=None)
    with pytest.raises(ConfigError, match="text='class'"):
        VisionObjective(model=make_model(), trainable=["*"], text="class")


def test_an_encoder_that_stays_frozen_is_refused(make_model):
    with pytest.raises(ConfigError, match=r"leaves it frozen.*vision_encoder"):
        VisionObjective(model=make_model(), trainable=["projector.*"], text="caption")


def test_a_text_tower_that_lacks_rows_is_refused(make, make_language_model):
    tower = make_language_model()
    tower.vocab_size -= 1
    with pytest.raises(ConfigError, match="same vocab_size"):
        make("contrast", text_tower=tower)


@pytest.mark.parametrize("name", ["text_weight", "reconstruction_weight"])
def test_a_negative_weight_is_refused(make, name):
    with pytest.raises(ConfigError, match=f"{name}=-1"):
        make("caption", **{name: -1.0})
