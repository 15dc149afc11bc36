import math

import pytest
import torch

from mllm_npu.errors import ConfigError
from mllm_npu.models.positions import grid_side, sincos_grid


def test_the_first_half_holds_the_column_and_the_second_the_row():
    grid = sincos_grid(3, 8)
    assert grid.shape == (9, 8)
    place = 1 * 3 + 2
    column, row = grid[place, :4], grid[place, 4:]
    rates = torch.tensor([1.0, 0.01])
    torch.testing.assert_close(column, torch.cat([(2 * rates).sin(), (2 * rates).cos()]))
    torch.testing.assert_close(row, torch.cat([rates.sin(), rates.cos()]))


def test_the_longest_wave_can_be_chosen():
    assert sincos_grid(2, 8, longest_wave=100.0)[1, 1].item() == pytest.approx(math.sin(0.1))


@pytest.mark.parametrize("count", [0, 2, 15])
def test_only_squares_have_an_edge(count):
    assert grid_side(16, part="A part") == 4
    with pytest.raises(ConfigError, match=f"A part needs .* got {count}"):
        grid_side(count, part="A part")


def test_a_width_that_does_not_split_in_four_is_refused():
    with pytest.raises(ConfigError, match="got 6"):
        sincos_grid(2, 6)
