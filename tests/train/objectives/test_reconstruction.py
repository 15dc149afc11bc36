import dataclasses

import pytest
import torch

from mllm_npu.errors import ConfigError
from mllm_npu.train.objectives.reconstruction import (
    Reconstruction,
    count_real_tiles,
    mark_real_tiles,
    read_sequences,
)


def test_the_error_is_zero_when_the_patches_are_right():
    head = Reconstruction(width=8, num_tokens=4, tile_size=4)
    colours = torch.tensor([[0, 255, 51, 204], [102, 153, 255, 0]])
    tiles = colours.view(2, 1, 2, 2).repeat(1, 3, 1, 1)
    tiles = tiles.repeat_interleave(2, 2).repeat_interleave(2, 3).to(torch.uint8)

    class Answer(torch.nn.Module):
        def forward(self, pooled):
            return pooled[..., :1].expand(-1, -1, 12)

    head.layers = Answer()
    features = (colours.float() / 127.5 - 1)[..., None].expand(-1, -1, 8)
    assert head(features, tiles).tolist() == pytest.approx([0.0, 0.0], abs=1e-10)
    wrong = head(features.flip(1), tiles)
    assert (wrong > 0.1).all()


def test_pools_to_a_coarser_grid():
    head = Reconstruction(width=8, num_tokens=16, tile_size=8, num_patches=4)
    assert head.patch_size == 4
    errors = head(torch.randn(3, 16, 8), torch.zeros(3, 3, 8, 8, dtype=torch.uint8))
    assert errors.shape == (3,)
    assert errors.dtype == torch.float32


def test_learns_to_paint():
    torch.manual_seed(0)
    head = Reconstruction(width=8, num_tokens=4, tile_size=4, hidden_width=32)
    tiles = torch.randint(0, 256, (6, 3, 4, 4), dtype=torch.uint8)
    features = torch.randn(6, 4, 8)
    optimizer = torch.optim.Adam(head.parameters(), 1e-2)
    first = head(features, tiles).mean().item()
    for _ in range(100):
        optimizer.zero_grad()
        head(features, tiles).mean().backward()
        optimizer.step()
    assert head(features, tiles).mean().item() < 0.3 * first


@pytest.mark.parametrize(
    "sizes",
    [
        {"num_tokens": 5, "tile_size": 4},
        {"num_tokens": 4, "tile_size": 5},
        {"num_tokens": 16, "tile_size": 8, "num_patches": 3},
    ],
)
def test_refuses_grids_that_do_not_fit(sizes):
    with pytest.raises(ConfigError, match="squares"):
        Reconstruction(width=8, **sizes)


@pytest.mark.parametrize(
    ("kinds", "marks"),
    [("rdb", [1, 1, 0, 0]), ("2d", [1, 1, 1]), ("b", [0, 0]), ("rrb", [1, 1, 0, 0])],
)
def test_the_blank_tile_does_not_count(make_batch, kinds, marks):
    assert mark_real_tiles(make_batch(kinds)).tolist() == marks
    assert count_real_tiles(make_batch(kinds)) == sum(marks)


def test_read_tiles_know_their_sequence(make_batch):
    assert read_sequences(make_batch("rd2r")).tolist() == [0, 2, 2, 3]


def test_joined_tiles_know_their_sequence_too(make_batch):
    """The first sequence reads tiles 0 to 2, the third reads tile 3, one token a tile."""
    batch = make_batch("rd2r")
    ends = batch.sequence_ends
    places = [0, 1, 2, 3, ends[1], ends[1] + 1]
    joined = dataclasses.replace(
        batch,
        read_slots=batch.read_slots[:0, :1],
        grid_slots=torch.tensor(places),
        grid_sources=torch.tensor([[3], [1], [2], [0], [4], [0]]),
    )
    assert read_sequences(joined).tolist() == [0, 0, 0, 2]
