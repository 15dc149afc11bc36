"""What drawing models share: targets, empty features, and a model without a language model."""

import pytest
import torch

from mllm_npu.errors import ConfigError
from mllm_npu.models.drawing import Detokenizer
from mllm_npu.models.drawn_features import DrawnFeatures
from mllm_npu.models.image_decoder.flow import FlowImageDecoder
from mllm_npu.models.tiny import tiny_seed, tiny_vision_encoder


def detokenizer(width=16):
    return Detokenizer(
        vision_encoder=tiny_vision_encoder(),
        image_decoder=FlowImageDecoder(
            width=width, num_tokens=4, picture_size=8, block_channels=(8, 8)
        ),
        drawn_features=DrawnFeatures(width=16, num_tokens=4, normalize=False),
    )


def test_a_detokenizer_has_the_names_of_a_seed_model():
    model, seed = detokenizer(), tiny_seed(normalize=False)
    assert {name.partition(".")[0] for name, _ in model.named_parameters()} == {
        "vision_encoder",
        "image_decoder",
    }
    shared = [name for name in model.state_dict() if name.startswith("vision_encoder.")]
    seed.load_state_dict({name: model.state_dict()[name] for name in shared}, strict=False)
    assert set(shared) <= set(seed.state_dict())


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"image_decoder.width=12 .* drawn_features.width=16"):
        detokenizer(width=12)


def test_empty_features_are_those_of_zero_pixels_computed_once(monkeypatch):
    model = detokenizer().eval()
    assert model.empty_features() is None
    model.image_decoder.needs_empty = True
    seen = []
    normalize = model.vision_encoder._normalize

    def watch(tiles):
        seen.append(normalize(tiles))
        return seen[-1]

    monkeypatch.setattr(model.vision_encoder, "_normalize", watch)
    first = model.empty_features()
    assert model.empty_features() is first
    assert first.shape == (4, 16)
    assert seen[0].abs().max() < 1e-6
    model.train()
    model.empty_features()
    assert len(seen) == 2


def test_empty_features_follow_the_weights():
    model = detokenizer().eval()
    model.image_decoder.needs_empty = True
    before = model.empty_features()
    with torch.no_grad():
        for parameter in model.vision_encoder.parameters():
            parameter.mul_(1.5)
    assert not torch.allclose(before, model.empty_features())


def test_draw_passes_pictures_to_change_only_to_a_decoder_that_takes_them(monkeypatch):
    model, given = detokenizer(), []
    monkeypatch.setattr(
        model.image_decoder, "decode", lambda features, **options: given.append(options)
    )
    conditions = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    for takes in (False, True):
        model.image_decoder.takes_condition = takes
        model.draw(
            torch.zeros(1, 4, 16),
            steps=1,
            guidance=1.0,
            generator=None,
            conditions_G3SS=conditions,
            image_guidance=1.2,
        )
    assert given[0]["conditions_G3SS"] is None
    assert given[1]["conditions_G3SS"] is conditions
    assert given[1]["image_guidance"] == 1.2
