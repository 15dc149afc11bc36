"""Project every feature by itself, through a layer that a second one opens and shuts.

Shape letters: I tiles, K tokens of a tile, V input width, D output width.
"""

from __future__ import annotations

from torch import Tensor, nn

from mllm_npu.models.interfaces import Projector


class GatedProjector(Projector):
    """Two linear layers; the sigmoid of one multiplies the other.

    Args:
        input_dim: V.
        output_dim: D.
        num_queries: K.

    Source: Dauphin et al. 2017.
    """

    def __init__(self, *, input_dim: int, output_dim: int, num_queries: int) -> None:
        super().__init__()
        self.input_dim, self.output_dim, self.num_queries = input_dim, output_dim, num_queries
        self.value = nn.Linear(input_dim, output_dim)
        self.gate = nn.Linear(input_dim, output_dim)

    def forward(self, features_IKV: Tensor) -> Tensor:
        """Project float [I, K, V] -> float [I, K, D]."""
        return self.value(features_IKV) * self.gate(features_IKV).sigmoid()
