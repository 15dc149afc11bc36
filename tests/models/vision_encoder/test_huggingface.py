import pytest
import torch

from mllm_npu.errors import ConfigError, DataError, WeightsError
from mllm_npu.models.tiny import TILE_SIZE, VISION_CONFIGS
from mllm_npu.models.vision_encoder.huggingface import HuggingFaceVisionEncoder

REGISTERED = {
    "dinov2_with_registers": {**VISION_CONFIGS["dinov2"], "model_type": "dinov2_with_registers"},
    "dinov3_vit": {
        **VISION_CONFIGS["siglip"],
        "model_type": "dinov3_vit",
        "num_register_tokens": 3,
    },
}
CONFIGS = {**VISION_CONFIGS, **REGISTERED}


def make_tiles(count=3):
    return torch.randint(0, 256, (count, 3, TILE_SIZE, TILE_SIZE), dtype=torch.uint8)


@pytest.mark.parametrize("family", CONFIGS)
def test_every_family_gives_the_grid_of_patches(family):
    encoder = HuggingFaceVisionEncoder(config=CONFIGS[family]).eval()
    features = encoder(make_tiles())
    assert features.shape == (3, encoder.num_tokens, encoder.width) == (3, 16, 16)
    assert (encoder.tile_size, encoder.patch_size) == (TILE_SIZE, 4)
    assert len(encoder.sharding_units()) == 1


@pytest.mark.parametrize("family", CONFIGS)
def test_tokens_lie_row_by_row(family):
    encoder = HuggingFaceVisionEncoder(config=CONFIGS[family]).eval()
    plain = torch.zeros(1, 3, TILE_SIZE, TILE_SIZE)
    spot = plain.clone()
    spot[:, :, 4:8, 8:12] = 255
    change = (encoder(spot) - encoder(plain)).norm(dim=-1)[0]
    assert change.argmax() == 1 * 4 + 2


@pytest.mark.parametrize("family", ["siglip", "siglip2"])
def test_an_earlier_layer_is_what_the_last_one_starts_from(family):
    config = {**CONFIGS[family], "num_hidden_layers": 2}
    last = HuggingFaceVisionEncoder(config=config).eval()
    earlier = HuggingFaceVisionEncoder(config=config, layer=-2).eval()
    earlier.load_state_dict(last.state_dict())
    states = {}
    last.sharding_units()[1].register_forward_pre_hook(
        lambda _, args, kwargs: states.update(found=args[0] if args else kwargs["hidden_states"]),
        with_kwargs=True,
    )
    tiles = make_tiles()
    last(tiles)
    torch.testing.assert_close(earlier(tiles), states["found"])


def test_pixels_are_normalised_per_channel():
    encoder = HuggingFaceVisionEncoder(
        config=CONFIGS["siglip"], mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25)
    )
    tiles = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    assert encoder._normalize(tiles)[0, :, 0, 0].tolist() == pytest.approx([1.0, 1.0, 0.0])


@pytest.mark.parametrize("num_channels", [1, 3])
def test_patches_enter_the_blocks_without_gaps(num_channels):
    encoder = HuggingFaceVisionEncoder(
        config={**CONFIGS["siglip"], "num_channels": num_channels}
    ).eval()
    seen = []
    encoder.sharding_units()[0].register_forward_pre_hook(
        lambda _, args, kwargs: seen.append((args or tuple(kwargs.values()))[0]), with_kwargs=True
    )
    encoder(make_tiles())
    assert seen[0].is_contiguous()


def test_floats_of_0_to_255_mean_the_same_as_bytes():
    encoder = HuggingFaceVisionEncoder(config=CONFIGS["siglip"]).eval()
    tiles = make_tiles()
    torch.testing.assert_close(encoder(tiles.float()), encoder(tiles))


def test_a_grey_encoder_takes_the_mean_of_the_colours():
    encoder = HuggingFaceVisionEncoder(config={**CONFIGS["siglip"], "num_channels": 1}).eval()
    tiles = make_tiles().float()
    grey = tiles.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    torch.testing.assert_close(encoder(tiles), encoder(grey), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"patch_sise": 4}, {}, "'patch_sise'.*near keys: patch_size"),
        ({"image_size": 3}, {}, "image_size=3, patch_size=4"),
        ({}, {"layer": 0}, "layer=0"),
        ({}, {"layer": -2}, "has 1, give -1"),
        ({}, {"std": (1.0, 0.0, 1.0)}, "std"),
        ({}, {"path": "/somewhere"}, "both config and path"),
    ],
)
def test_what_cannot_be_built_is_refused(changes, options, message):
    with pytest.raises(ConfigError, match=message):
        HuggingFaceVisionEncoder(config={**CONFIGS["siglip"], **changes}, **options)


def test_a_language_model_is_no_vision_encoder():
    with pytest.raises(ConfigError, match="no vision encoder"):
        HuggingFaceVisionEncoder(config={"model_type": "llama"})


def test_tiles_of_another_size_are_refused():
    with pytest.raises(DataError, match="16, 16"):
        HuggingFaceVisionEncoder(config=CONFIGS["siglip"])(torch.zeros(1, 3, 20, 16))


def test_a_saved_folder_is_loaded_and_a_broken_one_refused(tmp_path):
    encoder = HuggingFaceVisionEncoder(config=CONFIGS["clip"]).eval()
    encoder.vision_model.save_pretrained(tmp_path / "whole")
    again = HuggingFaceVisionEncoder(path=str(tmp_path / "whole")).eval()
    tiles = make_tiles()
    assert torch.equal(again(tiles), encoder(tiles))
    weights = dict(encoder.vision_model.state_dict())
    weights.pop("post_layernorm.weight")
    encoder.vision_model.save_pretrained(tmp_path / "part", state_dict=weights)
    with pytest.raises(WeightsError, match="post_layernorm"):
        HuggingFaceVisionEncoder(path=str(tmp_path / "part"))


@pytest.mark.parametrize("family", CONFIGS)
def test_it_builds_and_runs_without_memory(family):
    with torch.device("meta"):
        encoder = HuggingFaceVisionEncoder(config=CONFIGS[family])
        assert encoder(make_tiles()).is_meta
    assert all(parameter.is_meta for parameter in encoder.parameters())


def test_what_is_left_of_an_edge_is_not_seen():
    """SigLIP so400m has tiles of 384 pixels and patches of 14, 27 to an edge."""
    encoder = HuggingFaceVisionEncoder(config=VISION_CONFIGS["siglip"] | {"image_size": 18})
    assert (encoder.num_tokens, encoder.tile_size) == (16, 18)
    tiles = torch.randint(0, 256, (1, 3, 18, 18), dtype=torch.uint8)
    assert encoder(tiles).shape == (1, 16, 16)
    changed = tiles.clone()
    changed[..., -1] = 255 - changed[..., -1]
    assert torch.equal(encoder(tiles), encoder(changed))


def test_the_last_states_may_be_had_without_the_final_norm():
    plain = HuggingFaceVisionEncoder(config=CONFIGS["siglip"], final_norm=False).eval()
    normed = HuggingFaceVisionEncoder(config=CONFIGS["siglip"]).eval()
    normed.load_state_dict(plain.state_dict())
    torch.nn.init.normal_(normed.vision_model.post_layernorm.weight)
    tiles = make_tiles()
    expected = normed.vision_model.post_layernorm(plain(tiles))
    torch.testing.assert_close(normed(tiles), expected)
    assert not torch.allclose(normed(tiles), plain(tiles))
