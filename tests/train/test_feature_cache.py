import time

import pytest
import torch

from mllm_npu.errors import ConfigError
from mllm_npu.train.feature_cache import FeatureCache, tile_keys


def make_tiles(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 4, 4), generator=generator, dtype=torch.uint8)


@pytest.fixture
def encoder(make_model):
    return make_model().vision_encoder


def test_gives_what_the_encoder_gives_and_encodes_each_tile_once(encoder):
    tiles = make_tiles(6)
    expected = encoder(tiles).detach()
    encoder.num_tiles = 0
    cache = FeatureCache(max_gib=0.001)
    assert torch.equal(cache.features(tiles, encoder), expected)
    # Known, unknown and repeated tiles in one call.
    more = make_tiles(3, seed=1)
    mixed = torch.cat([more[:1], tiles[4:5], more, tiles[:2]])
    torch.testing.assert_close(cache.features(mixed, encoder), encoder(mixed))
    assert torch.equal(cache.features(tiles.flip(0), encoder), expected.flip(0))
    assert len(cache) == 9
    assert cache.num_encoded == 9
    assert encoder.num_tiles == 9 + len(mixed)
    assert not cache.features(tiles, encoder).requires_grad


def test_repeated_tiles_of_the_first_call_are_encoded_once(encoder):
    tiles = make_tiles(2)[[0, 1, 0, 0]]
    features = FeatureCache(max_gib=0.001).features(tiles, encoder)
    assert encoder.num_tiles == 2
    torch.testing.assert_close(features, encoder(tiles))


def test_grows_past_its_first_size(encoder):
    cache = FeatureCache(max_gib=0.01)
    tiles = make_tiles(3000)
    for part in tiles.split(700):
        cache.features(part, encoder)
    encoder.num_tiles = 0
    torch.testing.assert_close(cache.features(tiles, encoder), encoder(tiles))
    assert encoder.num_tiles == 3000


def test_a_full_table_encodes_without_storing(encoder):
    row_bytes = 4 * 6 * 4
    cache = FeatureCache(max_gib=5 * row_bytes / 2**30)
    tiles = make_tiles(8)
    for _ in range(2):
        torch.testing.assert_close(cache.features(tiles, encoder), encoder(tiles))
    assert len(cache) == 5
    assert cache.num_encoded == 8 + 3


def test_another_encoder_empties_the_table(encoder, make_model):
    cache, tiles = FeatureCache(max_gib=0.001), make_tiles(2)
    cache.features(tiles, encoder)
    other = make_model(seed=1).vision_encoder
    torch.testing.assert_close(cache.features(tiles, other), other(tiles))


def test_keys_depend_on_the_bytes_alone():
    tiles = make_tiles(3)
    strided = tiles.repeat_interleave(2, dim=0)[::2]
    assert tile_keys(tiles) == tile_keys(strided)
    changed = tiles.clone()
    changed[1, 2, 3, 3] ^= 1
    assert [a == b for a, b in zip(tile_keys(tiles), tile_keys(changed), strict=True)] == [
        True,
        False,
        True,
    ]


def test_looking_up_150_tiles_of_768_bytes_takes_milliseconds(encoder):
    tiles = torch.randint(0, 256, (150, 3, 16, 16), dtype=torch.uint8)
    cache = FeatureCache(max_gib=0.1)
    cache.features(tiles, encoder)
    times = []
    for _ in range(5):
        start = time.process_time()
        cache.features(tiles, encoder)
        times.append(time.process_time() - start)
    assert min(times) < 0.005


def test_refuses_no_room():
    with pytest.raises(ConfigError, match="max_gib"):
        FeatureCache(max_gib=0)
