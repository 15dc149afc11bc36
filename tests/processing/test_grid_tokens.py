"""Joined tokens are those that transformers packs, for every size of a picture."""

import math
from types import SimpleNamespace

import pytest
import torch
from transformers.models.llava_next.modeling_llava_next import LlavaNextModel, unpad_image
from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel

from mllm_npu.processing.grid_tokens import (
    count_joined,
    join_grid,
    shrunk_size,
    single_tile,
    unpadded_size,
)

SIDE, TILE, WIDTH = 6, 24, 5
SIZES = [(24, 24), (50, 40), (200, 21), (19, 300), (3, 2), (1000, 999), (61, 43), (96, 95)]


def gather(grid, tokens, newline):
    known = torch.cat([newline[None], tokens.flatten(0, 1)])
    picked = known[grid.sources]
    weights = torch.ones(grid.sources.shape) if grid.weights is None else grid.weights
    return (picked * weights[..., None]).sum(1)


def stand_in(columns, rows):
    """What the packing of transformers asks of a model; one grid, so that it is always chosen."""
    config = SimpleNamespace(
        vision_config=SimpleNamespace(image_size=TILE, patch_size=TILE // SIDE),
        image_grid_pinpoints=[[rows * TILE, columns * TILE]],
    )
    return SimpleNamespace(config=config)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("columns", "rows"), [(1, 1), (2, 1), (1, 3), (2, 2), (4, 3)])
@pytest.mark.parametrize("max_tiles", [None, 1, 2, 9])
def test_tokens_are_those_of_transformers(size, columns, rows, max_tiles):
    width, height = size
    settings = {"columns": columns, "rows": rows, "side": SIDE, "max_tiles": max_tiles}
    *_, across, down = unpadded_size(width, height, columns=columns, rows=rows, side=SIDE)
    new_across, new_down = shrunk_size(across, down, side=SIDE, max_tiles=max_tiles)
    torch.manual_seed(1)
    tokens = torch.randn(columns * rows + 1, SIDE**2, WIDTH)
    newline = torch.randn(WIDTH)
    grid = join_grid(width, height, **settings)
    found = gather(grid, tokens, newline)
    assert len(found) == count_joined(width, height, **settings)
    assert len(found) == SIDE**2 + new_down * (new_across + 1)
    given = [torch.cat([tokens[-1:], tokens[:-1]])]
    sizes, model = torch.tensor([[height, width]]), stand_in(columns, rows)
    if max_tiles is None:
        packed, _ = LlavaNextModel.pack_image_features(model, given, sizes, "full", newline)
    else:
        ratio = math.sqrt(across * down / (max_tiles * SIDE**2))
        if ratio > 1.1 and min(across, down) < ratio:
            pytest.skip("transformers cannot shrink to nothing; one row or column is kept here")
        packed, _ = LlavaOnevisionModel.pack_image_features(
            model, given, sizes, newline, f"anyres_max_{max_tiles}"
        )
    torch.testing.assert_close(found, packed[0], rtol=0, atol=2e-6)


def test_weights_of_a_token_are_shares_and_newlines_stay_whole():
    grid = join_grid(1000, 999, columns=4, rows=3, side=SIDE, max_tiles=2)
    assert grid.weights is not None
    assert grid.weights.shape == grid.sources.shape
    torch.testing.assert_close(grid.weights.sum(1), torch.ones(len(grid.weights)))
    ends = (grid.sources[:, 0] == 0).nonzero().flatten()
    assert len(ends) > 5
    assert torch.equal(grid.weights[ends], torch.tensor([[1.0, 0, 0, 0]]).expand(len(ends), 4))
    assert grid.sources.max() == 13 * SIDE**2
    plain = join_grid(1000, 999, columns=4, rows=3, side=SIDE, max_tiles=None)
    assert plain.weights is None
    assert plain.sources.shape[1] == 1


def test_a_picture_of_one_tile_ends_with_a_newline():
    assert single_tile(2).sources[:, 0].tolist() == [1, 2, 3, 4, 0]
    assert single_tile(2).weights is None


@pytest.mark.parametrize("size", SIZES)
def test_borders_are_those_that_transformers_cuts_off(size):
    width, height = size
    marked = torch.arange(12 * 18).reshape(1, 12, 18)
    left, top, across, down = unpadded_size(width, height, columns=3, rows=2, side=SIDE)
    kept = unpad_image(marked, (height, width))
    assert torch.equal(kept, marked[:, top : top + down, left : left + across])


def test_a_grid_is_shrunk_only_where_it_is_much_too_large():
    assert shrunk_size(12, 12, side=SIDE, max_tiles=4) == (12, 12)
    assert shrunk_size(12, 13, side=SIDE, max_tiles=4) == (12, 13)
    assert shrunk_size(18, 18, side=SIDE, max_tiles=4) == (12, 12)
    assert shrunk_size(36, 1, side=1, max_tiles=1) == (6, 1)
    assert shrunk_size(18, 18, side=SIDE, max_tiles=None) == (18, 18)
