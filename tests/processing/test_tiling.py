"""A way of cutting pictures says how many tokens they have; joined ones say what of."""

import pytest
import torch

from mllm_npu.processing.anyres import AnyResolution
from mllm_npu.processing.tiling import Tiling, TokenSources


def test_tiles_that_stand_by_themselves_have_their_tokens_each():
    tiling = AnyResolution(grids=["1x1", "2x1"], tile_size=8)
    assert isinstance(tiling, Tiling)
    assert not tiling.joins
    assert not tiling.picks_by_company
    assert tiling.num_tokens(16, 8, per_tile=6) == tiling.num_tiles(16, 8) * 6 == 18
    assert tiling.num_tokens(16, 8, per_tile=6, alone=False) == 18
    with pytest.raises(NotImplementedError, match="AnyResolution are not joined"):
        tiling.token_sources(16, 8, per_tile=4)


def test_what_a_way_leaves_out_cannot_be_built():
    class Half(Tiling):
        max_tiles = 1

    with pytest.raises(TypeError, match="describe"):
        Half()


def test_sources_without_weights_are_one_token_each():
    grid = TokenSources(sources=torch.tensor([[1], [0]]))
    assert grid.weights is None
