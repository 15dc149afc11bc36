import dataclasses

import pytest
import torch

from mllm_npu.errors import ConfigError
from mllm_npu.train.feature_cache import FeatureCache
from mllm_npu.train.objectives.decoder import DecoderObjective


def features(model, batch, share):
    model.image_decoder.features.clear()
    DecoderObjective(model=model, predicted_share=share).train()(batch)
    return model.image_decoder.features[0]


def test_conditions_are_true_and_predicted_features_by_share(make_model, make_batch):
    model, batch = make_model(), make_batch("d" * 60)
    true, predicted = features(model, batch, 0.0), features(model, batch, 1.0)
    seen = model.vision_encoder(batch.tiles)
    torch.testing.assert_close(true, model.target_features(seen[batch.draw_tiles]))
    hidden = model.eval().hidden(batch, tile_features_IKV=seen)
    torch.testing.assert_close(predicted, model.predict_features(hidden[batch.draw_slots]))
    mixed = features(model, batch, 0.5)
    is_true = (mixed == true).all((1, 2))
    is_predicted = (mixed == predicted).all((1, 2))
    assert (is_true ^ is_predicted).all()
    assert 15 <= int(is_predicted.sum()) <= 45


def test_without_a_share_the_language_model_does_not_run(make_model, make_batch):
    model = make_model()
    model.hidden = None
    assert features(model, make_batch("d"), 0.0).shape == (1, 2, 6)


def test_only_the_decoder_is_trained_and_the_blank_picture_has_no_weight(make_model, make_batch):
    objective = DecoderObjective(model=make_model(), feature_cache=FeatureCache(max_gib=0.01))
    assert set(objective.trained_parameters()) == {
        "image_decoder.layer.weight",
        "image_decoder.layer.bias",
    }
    batch = make_batch("rb")
    losses = objective(batch)
    assert losses.terms["image_decoder"].count == 0 == objective.counts(batch)["image_decoder"]
    losses.total(objective.counts(batch)).backward()
    for parameter in objective.trained_parameters().values():
        assert parameter.grad.abs().sum() == 0
    drawn = objective(make_batch("dd"))
    assert drawn.terms["image_decoder"].count == 2
    torch.testing.assert_close(drawn.per_drawn.sum(), drawn.terms["image_decoder"].total.detach())


def test_draws_the_pictures_where_they_are_given(make_model, make_batch):
    batch = make_batch("d")
    black = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    objective = DecoderObjective(model=make_model(), predicted_share=0.0).eval()
    of_tile = objective(batch).per_drawn
    of_picture = objective(dataclasses.replace(batch, pictures=black)).per_drawn
    assert of_tile.item() != of_picture.item()


def with_conditions(batch, weights):
    shades = torch.arange(len(weights), dtype=torch.uint8)[:, None, None, None] + 100
    return dataclasses.replace(
        batch, conditions=shades.expand(-1, 3, 4, 4), condition_weights=torch.tensor(weights)
    )


def test_pictures_to_change_reach_the_decoder_and_missing_ones_are_zeros(make_model, make_batch):
    model, batch = make_model(), make_batch("dd")
    model.image_decoder.takes_condition = model.image_decoder.needs_empty = True
    objective = DecoderObjective(model=model, predicted_share=0.0)
    objective(with_conditions(batch, [1.0, 0.0]))
    [options] = model.image_decoder.options
    assert options["conditions_GCHW"][0].unique().tolist() == pytest.approx([100 / 127.5 - 1])
    assert options["conditions_GCHW"][1].abs().max() == 0
    assert (options["empty_PV"] == 7).all()
    with pytest.raises(ConfigError, match="condition_pictures=true"):
        objective(batch)


def test_latents_are_kept(make_model, make_batch):
    model, batch = make_model(), make_batch("dd")
    model.image_decoder.takes_condition = True
    batch = with_conditions(batch, [1.0, 1.0])
    plain = DecoderObjective(model=model, predicted_share=0.0)
    kept = DecoderObjective(
        model=model, predicted_share=0.0, latent_cache=FeatureCache(max_gib=0.01)
    )
    expected = plain(batch).per_drawn
    model.image_decoder.num_encoded = 0
    for _ in range(3):
        torch.testing.assert_close(kept(batch).per_drawn, expected)
    assert model.image_decoder.num_encoded == 4


def test_a_model_without_a_language_model_draws_true_features_only(make_model, make_batch):
    model = make_model()
    del model.language_model
    with pytest.raises(ConfigError, match="predicted_share=0"):
        DecoderObjective(model=model, predicted_share=0.5)
    assert DecoderObjective(model=model, predicted_share=0.0)(make_batch("d")).per_drawn.isfinite()


def test_pictures_of_another_size_are_refused(make_model, make_batch):
    pictures = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    batch = dataclasses.replace(make_batch("d"), pictures=pictures)
    with pytest.raises(ConfigError, match="picture_size to 4"):
        DecoderObjective(model=make_model())(batch)


def test_prepare_calibrates_where_no_stage_has(make_model, make_batch):
    model = make_model()
    DecoderObjective(model=model).prepare(iter([make_batch("d")]))
    assert model.drawn_features.calibrated


def test_a_cached_encoder_is_called_at_will_and_blocks_of_the_decoder_are_not(make_model):
    model = make_model()
    cached = DecoderObjective(model=model, feature_cache=FeatureCache(max_gib=0.01))
    assert cached.parts_called_at_will() == (model.vision_encoder,)
    assert cached.sharding_units() == [model.language_model.layer, model.image_decoder.layer]
    plain = DecoderObjective(model=model)
    assert plain.parts_called_at_will() == ()
    assert plain.sharding_units()[0] is model.vision_encoder.layer


def test_refuses_what_cannot_be_trained(make_model):
    model = make_model()
    with pytest.raises(ConfigError, match="predicted_share=2"):
        DecoderObjective(model=model, predicted_share=2)
    with pytest.raises(ConfigError, match="encoder is trained"):
        DecoderObjective(model=model, trainable=["*"], feature_cache=FeatureCache(max_gib=0.01))
    model.image_decoder = None
    with pytest.raises(ConfigError, match="FakeModel has none"):
        DecoderObjective(model=model)
