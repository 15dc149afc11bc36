"""Joined tokens of several pictures are numbered over all their tiles."""

import pytest
import torch

from mllm_npu.processing.conversation import Conversation, DrawnImage, ReadImage
from mllm_npu.processing.grid_slots import join_sources, place_grids
from mllm_npu.processing.joined_tiles import JoinedTiles
from mllm_npu.processing.layout import TokenLayout
from mllm_npu.processing.tiling import TokenSources

TILING = JoinedTiles(grids=["1x1", "2x1", "2x2"], tile_size=8, max_grid_tiles=2)


def test_tokens_move_behind_those_before_and_newlines_stay():
    first = TokenSources(sources=torch.tensor([[1], [4], [0]]))
    second = TokenSources(
        sources=torch.tensor([[1, 2, 0, 0], [3, 0, 0, 0]]),
        weights=torch.tensor([[0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]),
    )
    sources, weights = join_sources([first, second], [4, 4])
    assert sources.tolist() == [
        [1, 0, 0, 0],
        [4, 0, 0, 0],
        [0, 0, 0, 0],
        [5, 6, 0, 0],
        [7, 0, 0, 0],
    ]
    assert weights.sum(1).tolist() == [1.0] * 5
    plain, none = join_sources([first, first], [4, 4])
    assert plain[:, 0].tolist() == [1, 4, 0, 5, 8, 0]
    assert none is None


@pytest.mark.parametrize("sizes", [[(8, 8)], [(16, 9), (40, 40)], [(40, 40), (3, 2), (16, 9)]])
def test_every_token_of_a_layout_has_its_sources(picture, sizes):
    layout = TokenLayout(conversation=Conversation(turns=()))
    counts = []
    for width, height in sizes:
        layout.add([5, 6], learn=False)
        count = TILING.num_tokens(width, height, per_tile=4)
        counts.append(TILING.num_tiles(width, height) * 4)
        layout.add_joined(ReadImage(picture=picture(width, height)), [7] * count, counts[-1] // 4)
    slots, sources, weights = place_grids(layout, TILING, 4)
    ids = torch.tensor(layout.ids)
    assert torch.equal(slots, (ids == 7).nonzero().flatten())
    assert len(sources) == len(slots)
    assert sources.max() == sum(counts)
    assert sources.min() == 0
    assert (weights is None) == ((40, 40) not in sizes)
    # The whole picture comes first, and is the last of its picture's tiles.
    assert sources[0, 0] == counts[0] - 3


def test_without_joined_tiles_there_is_nothing(picture):
    layout = TokenLayout(conversation=Conversation(turns=()))
    layout.add_drawn(DrawnImage(picture=picture()), [1, 2, 3])
    assert place_grids(layout, TILING, 4) == (None, None, None)
