import dataclasses

import pytest
import torch

from mllm_npu.errors import ConfigError, DataError
from mllm_npu.models.mllm import SEED, GeneraliazedMultimodalModels, GeneralizedMultimodalModel
from mllm_npu.models.projector.mlp import MLPProjector
from mllm_npu.models.tiny import (
    NUM_QUERIES,
    tiny_batch,
    tiny_language_model,
    tiny_mllm,
    tiny_projector,
    tiny_seed,
    tiny_vision_encoder,
)

COUNTS = {"language": 6, "image": 1}


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def cut(batch, sequence):
    """The part of a pack that belongs to one sequence, with what it reads and draws."""
    start = (0, *batch.sequence_ends)[sequence]
    end = batch.sequence_ends[sequence]
    chosen = batch.target_sequences == sequence
    inside = {
        name: slots if start <= slots[0, 0] < end else slots[:0]
        for name, slots in (("read", batch.read_slots), ("draw", batch.draw_slots))
    }
    reads, draws = len(inside["read"]), len(inside["draw"])
    return dataclasses.replace(
        batch,
        input_ids=batch.input_ids[start:end],
        position_ids=batch.position_ids[start:end],
        sequence_ends=(end - start,),
        target_positions=batch.target_positions[chosen] - start,
        targets=batch.targets[chosen],
        read_tiles=batch.read_tiles[:reads],
        read_slots=inside["read"] - start,
        draw_tiles=batch.draw_tiles[:draws],
        draw_slots=inside["draw"] - start,
        draw_weights=batch.draw_weights[:draws],
        num_drawn=draws,
    )


def test_the_spelling_of_the_original_is_an_alias():
    assert GeneraliazedMultimodalModels is GeneralizedMultimodalModel


@pytest.mark.parametrize("language", ["llama", "gpt_neox"])
def test_a_pack_has_the_losses_and_gradients_of_its_sequences_apart(language):
    model, batch = tiny_seed(language=language), tiny_batch()
    packed = model(batch)
    apart = [model(cut(batch, sequence)) for sequence in range(4)]
    for name, term in packed.terms.items():
        total = sum(losses.terms[name].total for losses in apart)
        torch.testing.assert_close(term.total, total)
        assert term.count == sum(losses.terms[name].count for losses in apart)
    torch.testing.assert_close(packed.per_target, torch.cat([one.per_target for one in apart]))
    found = gradients(model, packed.total(COUNTS))
    truth = gradients(model, sum(losses.total(COUNTS) for losses in apart))
    assert set(found) == set(truth)
    for name, gradient in truth.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("draws", [True, False])
def test_every_batch_takes_the_same_path(reads, draws):
    model = tiny_seed()
    full = set(gradients(model, model(tiny_batch()).total(COUNTS)))
    batch = tiny_batch(reads=reads, draws=draws)
    losses = model(batch)
    found = gradients(model, losses.total(COUNTS))
    assert set(found) == full
    image = losses.terms["image"]
    assert image.count == int(draws)
    assert (image.total.item() == 0) == (not draws)
    drawn = found["output_projector.attn.out_proj.weight"].abs().sum()
    assert (drawn == 0) == (not draws)
    read = found["projector.attn.out_proj.weight"].abs().sum()
    assert (read == 0) == (not reads)


def test_a_blank_tile_changes_nothing_for_the_others():
    model = tiny_mllm()
    batch = tiny_batch(reads=False)
    other = dataclasses.replace(batch, tiles=255 - batch.tiles)
    for name, term in model(batch).terms.items():
        assert torch.equal(term.total, model(other).terms[name].total)


def test_known_tile_features_give_what_the_encoder_gives():
    model, batch = tiny_seed(), tiny_batch()
    features = model.encode_tiles(batch.tiles)
    given = model(batch, tile_features_IKV=features)
    for name, term in model(batch).terms.items():
        assert torch.equal(term.total, given.terms[name].total)


def test_a_model_that_only_reads_has_the_language_loss_only():
    losses = tiny_mllm()(tiny_batch())
    assert set(losses.terms) == {"language"}
    assert losses.per_target.shape == (6,)


def test_tiles_stand_in_their_slots_and_nothing_else_moves():
    model, batch = tiny_mllm(), tiny_batch()
    embeds = model.embed_batch(batch)
    slots = batch.read_slots.flatten()
    features = model.encode_tiles(batch.tiles)[batch.read_tiles]
    tokens = model.read(features, batch.tile_positions[batch.read_tiles])
    assert torch.equal(embeds[slots], tokens[0])
    others = torch.tensor([n for n in range(batch.num_tokens) if n not in slots.tolist()])
    assert torch.equal(embeds[others], model.language_model.embed(batch.input_ids[others]))


def test_the_place_of_a_tile_is_added_to_all_its_tokens():
    model = tiny_mllm()
    features = torch.randn(2, 16, 16)
    places = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    shift = model.read(features, places) - model.projector(features)
    weights = torch.tensor([0.25, 0.75, 0.75, 0.25]) / 2
    expected = weights @ model.patch_pos_embed
    torch.testing.assert_close(shift[0], expected.expand(NUM_QUERIES, -1), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(shift[0], shift[1])


def test_predictions_are_compared_with_standardised_features():
    model, batch = tiny_seed(), tiny_batch()
    features = model.encode_tiles(batch.tiles)
    model.drawn_features.calibrate(features)
    losses = model(batch)
    states = model.drawn_hidden(batch, model.hidden(batch))
    assert torch.equal(states[0], model.hidden(batch)[batch.draw_slots[0]])
    target = model.target_features(features[batch.draw_tiles])
    expected = (model.predict_features(states) - target).square().mean()
    torch.testing.assert_close(losses.terms["image"].total, expected)
    torch.testing.assert_close(losses.per_drawn, expected.detach()[None])
    assert not target.requires_grad


def test_the_kind_of_image_loss_and_the_weights_are_chosen_by_name():
    parts = seed_parts()
    cosine = SEED(**parts, image_loss="cosine", image_weight=3.0, language_weight=0.5)
    terms = cosine(tiny_batch()).terms
    assert (terms["image"].weight, terms["language"].weight) == (3.0, 0.5)
    assert 0 <= terms["image"].total.item() <= 2
    with pytest.raises(ConfigError, match="'huber'; choose one of mse, cosine"):
        SEED(**parts, image_loss="huber")


def seed_parts():
    whole = tiny_seed()
    names = ("language_model", "vision_encoder", "projector", "output_projector")
    names += ("image_decoder", "drawn_features")
    return {name: getattr(whole, name) for name in names}


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="output_projector"):
        SEED(**(seed_parts() | {"output_projector": None}))
    with pytest.raises(ConfigError, match=r"projector.output_dim=16 .*=32"):
        GeneralizedMultimodalModel(
            language_model=tiny_language_model(),
            vision_encoder=tiny_vision_encoder(),
            projector=tiny_projector("mlp", input_dim=16, output_dim=16, num_tokens=16),
        )


def test_without_an_image_decoder_features_are_learnt_all_the_same():
    model = SEED(**(seed_parts() | {"image_decoder": None}))
    losses = model(tiny_batch())
    assert losses.terms["image"].total > 0
    assert not any("image_decoder" in name for name in model.state_dict())


def test_batches_with_another_number_of_slots_are_refused():
    model, batch = tiny_seed(), tiny_batch()
    short = dataclasses.replace(batch, read_slots=batch.read_slots[:, :3])
    with pytest.raises(DataError, match=r"3 slots per read tile.* 4 .*num_read_tokens"):
        model(short)
    short = dataclasses.replace(batch, draw_slots=batch.draw_slots[:, :3])
    with pytest.raises(DataError, match=r"3 slots per drawn picture.* 4 .*num_drawn_tokens"):
        model(short)


def test_it_builds_and_runs_without_memory():
    with torch.device("meta"):
        model = tiny_seed()
    assert all(parameter.is_meta for parameter in model.parameters())
    losses = model(tiny_batch().to("meta"))
    assert losses.total(COUNTS).is_meta


def test_an_output_projector_of_another_kind_works_too():
    parts = seed_parts()
    parts["output_projector"] = MLPProjector(input_dim=32, output_dim=16, num_queries=NUM_QUERIES)
    assert SEED(**parts)(tiny_batch()).terms["image"].count == 1


def joining_batch(batch):
    """The same pack with its tile joined: the tokens in another order, a newline, a mixture."""
    slots = torch.cat([batch.read_slots[0], batch.read_slots[0, -1:] + 1])
    sources = torch.arange(NUM_QUERIES, -1, -1)[:, None].repeat(1, 2)
    weights = torch.tensor([[1.0, 0.0]]).repeat(len(slots), 1)
    sources[1] = torch.tensor([1, 2])
    weights[1] = torch.tensor([0.25, 0.75])
    return dataclasses.replace(
        batch,
        read_slots=batch.read_slots[:0],
        grid_slots=slots,
        grid_sources=sources,
        grid_weights=weights,
    )


def test_joined_tiles_stand_in_their_slots_with_a_newline():
    parts = dict(tiny_mllm().named_children())
    model = GeneralizedMultimodalModel(**parts, newline=True)
    plain = tiny_batch()
    batch = joining_batch(plain)
    embeds = model.embed_batch(batch)
    tokens = model.read(
        model.encode_tiles(plain.tiles)[plain.read_tiles], plain.tile_positions[plain.read_tiles]
    )[0]
    assert torch.equal(embeds[batch.grid_slots[0]], tokens[-1])
    expected = 0.25 * tokens[0] + 0.75 * tokens[1]
    torch.testing.assert_close(embeds[batch.grid_slots[1]], expected)
    assert torch.equal(embeds[batch.grid_slots[-1]], model.newline)
    model(batch).terms["language"].total.backward()
    assert model.newline.grad.abs().sum() > 0


def test_joined_tiles_without_a_newline_are_refused():
    with pytest.raises(DataError, match="newline=true"):
        tiny_mllm()(joining_batch(tiny_batch()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_parts_of_half_precision_work_with_projectors_of_full(dtype):
    model = tiny_seed()
    whole = model(tiny_batch())
    model.vision_encoder.to(dtype)
    model.language_model.to(dtype)
    losses = model(tiny_batch())
    for name, term in losses.terms.items():
        expected = whole.terms[name].total.item()
        assert term.total.item() == pytest.approx(expected, rel=0.05)
