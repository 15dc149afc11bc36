import pytest
import torch

from mllm_npu.errors import ConfigError
from mllm_npu.train.feature_cache import FeatureCache
from mllm_npu.train.objectives.mllm import MultimodalObjective, frozen_features

FROZEN_ENCODER = ["*", "!vision_encoder.*", "!image_decoder.*"]


def make(model, *, cache=True, **options):
    feature_cache = FeatureCache(max_gib=0.01) if cache else None
    return MultimodalObjective(
        model=model, trainable=FROZEN_ENCODER, feature_cache=feature_cache, **options
    )


@pytest.mark.parametrize("kinds", ["rdr", "rrb", "db", "b"])
def test_counts_are_those_behind_the_terms(make_model, make_batch, kinds):
    objective, batch = make(make_model()), make_batch(kinds)
    losses = objective(batch)
    assert {name: term.count for name, term in losses.terms.items()} == objective.counts(batch)


def test_cached_features_change_nothing_and_save_the_encoder(make_model, make_batch):
    model, batch = make_model(), make_batch("rdr")
    plain, cached = make(model, cache=False).eval(), make(model).eval()
    for _ in range(2):
        expected = plain(batch).total(plain.counts(batch))
        model.vision_encoder.num_tiles = 0
        found = cached(batch).total(cached.counts(batch))
        assert torch.equal(found, expected)
    assert model.vision_encoder.num_tiles == 0


def test_a_trained_encoder_gets_gradients(make_model, make_batch):
    objective = MultimodalObjective(model=make_model(), trainable=["*"])
    losses = objective(make_batch("rd"))
    losses.total(objective.counts(make_batch("rd"))).backward()
    assert objective.model.vision_encoder.layer.weight.grad.abs().sum() > 0


def test_a_frozen_encoder_gets_none(make_model, make_batch):
    for cache in (True, False):
        objective, batch = make(make_model(), cache=cache), make_batch("rd")
        objective(batch).total(objective.counts(batch)).backward()
        assert objective.model.vision_encoder.layer.weight.grad is None
        assert objective.model.projector.weight.grad.abs().sum() > 0


def test_a_cache_of_changing_features_is_refused(make_model):
    with pytest.raises(ConfigError, match="features change"):
        MultimodalObjective(
            model=make_model(), trainable=["*"], feature_cache=FeatureCache(max_gib=0.01)
        )


def test_a_cached_encoder_is_called_at_will_and_another_is_not(make_model):
    model = make_model()
    assert make(model).parts_called_at_will() == (model.vision_encoder,)
    assert make(model, cache=False).parts_called_at_will() == ()


@pytest.mark.parametrize("cache", [True, False])
def test_features_come_to_where_it_computes_though_parameters_are_elsewhere(
    make_model, make_batch, cache
):
    """With parameters kept on the host, the encoder's own device says nothing."""
    seen = []

    class Encoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1), requires_grad=False)

        def forward(self, tiles):
            seen.append(tiles.device.type)
            return torch.zeros(len(tiles), 4, 6)

    model, batch = make_model(), make_batch("rd")
    model.vision_encoder = Encoder()
    kept = FeatureCache(max_gib=0.01) if cache else None
    for _ in range(2):
        features = frozen_features(model, batch.tiles, kept, torch.device("meta"))
    assert seen == (["meta"] if cache else ["meta", "meta"])
    assert features.device.type == ("meta" if cache else "cpu")


def test_features_of_a_trained_encoder_are_left_to_the_model(make_model, make_batch):
    model = make_model()
    assert frozen_features(model, make_batch("rd").tiles, None, torch.device("cpu")) is None


def test_prepare_measures_the_drawn_features_once(make_model, make_batch):
    model = make_model()
    objective = make(model, calibration_batches=2)
    batches = [make_batch("rdrb", seed=1), make_batch("ddb", seed=2), make_batch("d", seed=3)]
    objective.prepare(iter(batches))
    drawn = [batch.tiles[batch.draw_tiles[batch.draw_weights > 0]] for batch in batches[:2]]
    features = model.vision_encoder(torch.cat(drawn))
    torch.testing.assert_close(model.drawn_features.mean, features.mean((0, 1)))
    before = model.drawn_features.mean.clone()
    objective.prepare(iter(batches[2:]))
    assert torch.equal(model.drawn_features.mean, before)


def test_prepare_takes_all_tiles_where_nothing_is_drawn(make_model, make_batch):
    model, batch = make_model(), make_batch("rb")
    make(model).prepare(iter([batch]))
    features = model.vision_encoder(batch.tiles)
    torch.testing.assert_close(model.drawn_features.mean, features.mean((0, 1)))


def test_prepare_leaves_features_alone_that_are_not_normalised(make_model, make_batch):
    model = make_model(normalize=False)
    make(model).prepare(iter([make_batch("rd")]))
    assert not model.drawn_features.calibrated


def test_a_model_that_only_reads_needs_no_calibration(make_model, make_batch):
    model = make_model()
    del model.drawn_features
    objective = make(model)
    objective.prepare(iter([make_batch("rd")]))
    assert objective.counts(make_batch("rd")) == {"language": 6.0}
