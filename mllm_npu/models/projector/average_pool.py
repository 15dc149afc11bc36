"""Project a grid of features to a coarser grid by averaging, then one linear layer.

Shape letters: I tiles, K tokens of a tile, V input width, Q tokens given, D output width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mllm_npu.errors import ConfigError
from mllm_npu.models.interfaces import Projector
from mllm_npu.models.positions import grid_side


def pool_grid(features_GKV: Tensor, num_tokens: int) -> Tensor:
    """Average a square grid to ``num_tokens``, a square: [G, K, V] -> [G, num_tokens, V]."""
    if features_GKV.shape[1] == num_tokens:
        return features_GKV
    side = grid_side(features_GKV.shape[1], part="Grid pooling")
    grid_GVKK = features_GKV.transpose(1, 2).reshape(
        len(features_GKV), features_GKV.shape[2], side, side
    )
    return (
        F.adaptive_avg_pool2d(grid_GVKK, grid_side(num_tokens, part="Grid pooling"))
        .flatten(2)
        .transpose(1, 2)
    )


class AveragePoolProjector(Projector):
    """Adaptive average pooling of the grid, then a linear layer.

    Args:
        input_dim: V.
        output_dim: D.
        num_queries: Q, a square.
        num_tokens: K, a square, at least Q.

    Raises:
        ConfigError: no squares, or more tokens asked for than there are.
    """

    def __init__(
        self, *, input_dim: int, output_dim: int, num_queries: int, num_tokens: int
    ) -> None:
        super().__init__()
        for count in (num_queries, num_tokens):
            grid_side(count, part="AveragePoolProjector")
        if num_queries > num_tokens:
            raise ConfigError(
                f"AveragePoolProjector cannot give num_queries={num_queries} out of "
                f"num_tokens={num_tokens}."
            )
        self.input_dim, self.output_dim = input_dim, output_dim
        self.num_queries, self.num_tokens = num_queries, num_tokens
        self.projector = nn.Linear(input_dim, output_dim)

    def forward(self, features_IKV: Tensor) -> Tensor:
        """Project float [I, K, V] -> float [I, Q, D]."""
        return self.projector(pool_grid(features_IKV, self.num_queries))
