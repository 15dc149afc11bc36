import pytest
import torch

from mllm_npu.errors import ConfigError
from mllm_npu.models.projector.average_pool import AveragePoolProjector, pool_grid


def test_squares_of_the_picture_are_averaged():
    grid = torch.arange(16.0).view(1, 16, 1)
    assert pool_grid(grid, 4)[0, :, 0].tolist() == [2.5, 4.5, 10.5, 12.5]


def test_nothing_is_done_where_nothing_has_to_be():
    grid = torch.randn(2, 5, 3)
    assert pool_grid(grid, 5) is grid


@pytest.mark.parametrize("sizes", [(5, 16), (4, 15), (16, 4)])
def test_sizes_that_do_not_fit_are_refused(sizes):
    with pytest.raises(ConfigError):
        AveragePoolProjector(input_dim=4, output_dim=8, num_queries=sizes[0], num_tokens=sizes[1])
