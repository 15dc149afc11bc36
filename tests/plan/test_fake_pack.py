"""Packs of the size a run will see."""

import pytest
import torch

from mllm_npu.config import load_config
from mllm_npu.errors import ConfigError
from mllm_npu.models.tiny import NUM_QUERIES, TILE_SIZE, tiny_mllm, tiny_seed
from mllm_npu.plan.fake_pack import PackSize, PictureSize, make_pack, pack_size

PICTURES = PictureSize(
    tile_size=TILE_SIZE,
    num_read_tokens=4,
    num_drawn_tokens=4,
    picture_size=None,
    has_conditions=False,
)


def pack(size, pictures=PICTURES):
    generator = torch.Generator().manual_seed(0)
    return make_pack(size, pictures, vocab_size=64, generator=generator)


def test_a_pack_holds_what_was_asked_for():
    batch = pack(PackSize(tokens=100, sequence_tokens=30, tiles=2, drawn_share=0.5))
    assert batch.num_tokens == 100
    assert batch.sequence_ends == (30, 60, 90, 100)
    assert (len(batch.read_tiles), batch.num_drawn, len(batch.tiles)) == (4, 2, 6)
    assert batch.read_slots.shape == (4, 4)
    assert int(batch.input_ids.max()) < 64


def test_text_is_learnt_and_pictures_are_not():
    batch = pack(PackSize(tokens=30, sequence_tokens=30, tiles=2))
    slots = set(batch.read_slots.flatten().tolist())
    assert not slots & set((batch.target_positions + 1).tolist())
    assert batch.num_targets == 30 - 2 * (4 + 2)


def test_pictures_a_sequence_has_no_room_for_are_left_out():
    batch = pack(PackSize(tokens=12, sequence_tokens=12, tiles=9))
    assert len(batch.read_tiles) == 1


def test_drawn_pictures_and_what_they_change():
    pictures = PictureSize(
        tile_size=TILE_SIZE,
        num_read_tokens=4,
        num_drawn_tokens=4,
        picture_size=32,
        has_conditions=True,
    )
    batch = pack(PackSize(tokens=24, sequence_tokens=6, tiles=1, drawn_share=1.0), pictures)
    assert batch.pictures.shape == batch.conditions.shape == (4, 3, 32, 32)
    assert batch.condition_weights.tolist() == [1.0] * 4


def test_no_two_tiles_are_alike():
    """A cache of features must not take one for another."""
    batch = pack(PackSize(tokens=600, sequence_tokens=60, tiles=4))
    assert len({bytes(tile.flatten()[:8].tolist()) for tile in batch.tiles}) == len(batch.tiles)


def test_sizes_from_the_configuration():
    config = load_config("training", ["experiment=digits/mllm"])
    pictures = PictureSize.of(tiny_seed(), config)
    assert pictures.num_drawn_tokens == NUM_QUERIES
    size = pack_size(config, pictures)
    assert size.tokens == config.dataset.tokens_per_pack
    assert size.sequence_tokens == config.processor.max_tokens
    assert size.drawn_share == 0.5
    assert "configuration" in size.source


def test_a_model_that_only_reads_draws_nothing():
    config = load_config("training", ["experiment=digits/mllm"])
    pictures = PictureSize.of(tiny_mllm(), config)
    assert pictures.num_drawn_tokens == 0
    assert pack_size(config, pictures).drawn_share == 0.0


def test_the_budget_of_tiles_is_kept():
    settings = ["experiment=digits/mllm", "++dataset.tiles_per_pack=8"]
    settings += ["dataset.tokens_per_pack=1024", "processor.max_tokens=128"]
    config = load_config("training", [*settings, "processor.any_resolution.grids=[2x2]"])
    pictures = PictureSize.of(tiny_mllm(), config)
    size = pack_size(config, pictures)
    assert size.tiles == 1
    assert pack_size(load_config("training", settings[:1]), pictures).tiles >= 1


def test_tiles_are_the_mean_of_the_grids():
    settings = ["experiment=digits/mllm", "processor.any_resolution.grids=[1x2,2x2,1x5]"]
    size = pack_size(
        load_config("training", settings),
        PictureSize.of(tiny_mllm(), load_config("training", settings)),
    )
    assert size.tiles == round((3 + 5 + 6) / 3)


def test_an_image_decoder_is_trained_on_pictures_alone():
    config = load_config("training", ["experiment=detokenizer/tiny"])
    pictures = PictureSize(
        tile_size=16, num_read_tokens=4, num_drawn_tokens=16, picture_size=32, has_conditions=False
    )
    size = pack_size(config, pictures)
    assert (size.sequence_tokens, size.drawn_share) == (18, 1.0)


@pytest.mark.parametrize("changed", [{"tokens": 0}, {"sequence_tokens": 0}, {"tiles": -1}])
def test_impossible_sizes(changed):
    with pytest.raises(ConfigError, match="at least one token"):
        PackSize(**{"tokens": 4, "sequence_tokens": 4, "tiles": 1, **changed})
