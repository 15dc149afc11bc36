import pytest
import torch
from PIL import Image

from mllm_npu.inference.tile_cache import TileCache, name_tiles
from mllm_npu.processing.conversation import ask

SIZE = 4 * 3 * 2
"""Bytes of what the tests keep."""


def test_what_was_kept_is_found_and_the_oldest_leaves():
    cache = TileCache(max_bytes=2 * SIZE)
    tokens = {name: torch.full((3, 2), number) for number, name in enumerate((b"a", b"b", b"c"))}
    tokens = {name: part.float() for name, part in tokens.items()}
    cache.keep(b"a", tokens[b"a"])
    cache.keep(b"b", tokens[b"b"])
    assert torch.equal(cache.find(b"a"), tokens[b"a"])
    cache.keep(b"c", tokens[b"c"])
    assert cache.find(b"b") is None
    assert torch.equal(cache.find(b"c"), tokens[b"c"])
    assert (len(cache), cache.num_hits) == (2, 2)


def test_it_keeps_a_copy_once():
    cache = TileCache(max_bytes=10 * SIZE)
    batch = torch.zeros(5, 3, 2)
    cache.keep(b"a", batch[0])
    batch += 1
    cache.keep(b"a", batch[0])
    assert cache.find(b"a").sum() == 0
    assert cache.find(b"a").untyped_storage().nbytes() == SIZE


@pytest.mark.parametrize("max_bytes", [0, SIZE - 1])
def test_what_does_not_fit_is_not_kept(max_bytes):
    cache = TileCache(max_bytes=max_bytes)
    cache.keep(b"a", torch.zeros(3, 2))
    assert len(cache) == 0


def test_a_name_follows_from_pixels_and_place(fakes, real_processor):
    grey = fakes.noise_picture(0)
    one, again, other, wide = (
        name_tiles(real_processor.encode(ask("a", [picture]), reply=True))
        for picture in (grey, grey.copy(), fakes.noise_picture(1), fakes.noise_picture(0, (48, 16)))
    )
    assert one == again != other
    assert len(wide) == 4
    assert len({*one, *other, *wide}) == 6
    flat = Image.new("RGB", (48, 16))
    tiles = name_tiles(real_processor.encode(ask("a", [flat]), reply=True))
    assert len(set(tiles)) == 3  # the same pixels; the middle tile lies where the whole does
