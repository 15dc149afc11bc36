from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mllm_npu.errors import ConfigError
from mllm_npu.evaluate.encoder_features import EncoderFeatures, features_of
from mllm_npu.models.interfaces import VisionEncoder
from mllm_npu.models.tiny import tiny_vision_encoder


class CornerEncoder(VisionEncoder):
    """Two tokens: the mean colour of the left and of the right half; counts its batches."""

    width, num_tokens, tile_size = 3, 2, 4

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Identity(), nn.Hardtanh(0.0, 100.0)])
        self.batches = []

    def forward(self, tiles_I3HW):
        self.batches.append(len(tiles_I3HW))
        halves = tiles_I3HW.float().mean(2).unflatten(2, (2, 2)).mean(3)
        tokens_IKV = halves.transpose(1, 2)
        for block in self.blocks:
            tokens_IKV = block(tokens_IKV)
        return tokens_IKV

    def sharding_units(self):
        return list(self.blocks)


def two_colors(left, right):
    picture = Image.new("RGB", (4, 4), left)
    picture.paste(Image.new("RGB", (2, 4), right), (2, 0))
    return picture


def make_features(**values):
    return EncoderFeatures(encoder=CornerEncoder(), device="cpu", **values)


RED, GREEN, GREY = (100, 0, 0), (0, 100, 0), (50, 50, 50)


def test_a_picture_is_the_mean_of_its_tokens():
    features = make_features(batch=2)
    pooled = features.pool([two_colors(RED, RED), two_colors(GREEN, GREEN), two_colors(RED, RED)])
    np.testing.assert_allclose(pooled, [RED, GREEN, RED], atol=1e-4)
    assert pooled.dtype == np.float32
    assert features.encoder.batches == [2, 1]
    assert features.width == 3


def test_no_picture_gives_no_features():
    assert make_features().pool([]).shape == (0, 3)


def test_statistics_are_taken_batch_by_batch():
    features = make_features(batch=2)
    statistics = features.describe(two_colors(color, color) for color in (RED, GREEN, GREY))
    np.testing.assert_allclose(statistics.mean_V, [50, 50, 50 / 3], atol=1e-4)
    assert (statistics.num, features.encoder.batches) == (3, [2, 1])


def test_the_distance_is_that_of_tokens_of_length_one():
    """Red and green tokens are at right angles: squared distance 2. Brightness does not count."""
    features = make_features()
    same, bright = two_colors(RED, GREEN), two_colors((50, 0, 0), (0, 90, 0))
    found = features.distances(
        [same, same, two_colors(RED, RED), same],
        [same, bright, two_colors(RED, GREEN), two_colors(GREEN, RED)],
    )
    assert found == pytest.approx([0, 0, 1, 2], abs=1e-3)


def test_chosen_layers_are_averaged():
    """The last block cuts at 100: 200, 200, 0 becomes 100, 100, 0 and 200, 100, 0 too."""
    before, after = two_colors((200, 200, 0), RED), two_colors((200, 100, 0), RED)
    angle = 2 - 2 * 3 / (2**0.5 * 5**0.5)
    uncut, cut = angle / 2, 0.0
    assert make_features(layers=[-2]).distances([before], [after]) == pytest.approx(
        [uncut], abs=1e-2
    )
    assert make_features(layers=[-1]).distances([before], [after]) == pytest.approx([cut], abs=1e-2)
    both = make_features(layers=[-2, -1])
    assert both.distances([before], [after]) == pytest.approx([uncut / 2], abs=1e-2)
    assert not both.encoder.blocks[0]._forward_hooks


@pytest.mark.parametrize("family", ["siglip", "siglip2", "clip", "dinov2"])
def test_layers_of_every_family_are_heard(family):
    encoder = tiny_vision_encoder(family).eval()
    features = EncoderFeatures(encoder=encoder, device="cpu", batch=2, layers=[-1])
    pictures = [Image.new("RGB", (20, 10), color) for color in ("red", "blue", "white")]
    found = features.distances(pictures, pictures[::-1])
    assert found[1] == pytest.approx(0, abs=1e-6)
    assert found[0] == pytest.approx(found[2], abs=1e-5)
    assert 0 < found[0] <= 4


def test_a_layer_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match=r"layer -3 .* it has 2\. Give -1\.\.-2"):
        make_features(layers=[-3])
    with pytest.raises(ConfigError, match="layer 0"):
        make_features(layers=[0])


def test_the_probe_tells_encoders_apart():
    encoder = tiny_vision_encoder().eval()
    features = EncoderFeatures(encoder=encoder, device="cpu")
    probe = features.probe()
    assert probe.shape == (encoder.width,)
    np.testing.assert_array_equal(probe, features.probe())
    other = EncoderFeatures(encoder=tiny_vision_encoder().eval(), device="cpu").probe()
    assert np.linalg.norm(probe - other) > 0.1 * np.linalg.norm(probe)


def test_an_engine_lends_its_encoder_or_its_device():
    own = CornerEncoder().eval()
    engine = SimpleNamespace(
        model=SimpleNamespace(vision_encoder=own), device=torch.device("cpu"), max_batch=7
    )
    features = features_of(engine)
    assert (features.encoder, features.batch) == (own, 7)
    other = CornerEncoder().train()
    given = features_of(engine, other, layers=[-1])
    assert (given.encoder, given.layers) == (other, (-1,))
    assert not other.training
