"""Encode tiles patch by patch, without attention.

Shape letters: I tiles, H W pixels, K patches of a tile, V width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mllm_npu.models.interfaces import VisionEncoder
from mllm_npu.models.positions import grid_side


class PatchMLP(VisionEncoder):
    """A feature for each patch, from its own pixels and its place.

    The names width, num_tokens and tile_size are those that other parts look up.

    Args:
        width: V.
        num_tokens: K, a square.
        tile_size: pixels of a tile's edge, a multiple of the square's side.
        num_layers: residual blocks.
    """

    def __init__(
        self, *, width: int = 96, num_tokens: int = 16, tile_size: int = 16, num_layers: int = 2
    ) -> None:
        super().__init__()
        self.width, self.num_tokens, self.tile_size = width, num_tokens, tile_size
        patch = tile_size // grid_side(num_tokens, part="PatchMLP")
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.places = nn.Parameter(torch.zeros(num_tokens, width))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
            for _ in range(num_layers)
        )

    def forward(self, tiles_I3HW: Tensor) -> Tensor:
        """Encode tiles, uint8 [I, 3, H, W] -> float [I, K, V]."""
        pixels = tiles_I3HW.to(self.places.dtype) / 127.5 - 1
        features_IKV = self.patches(pixels).flatten(2).transpose(1, 2) + self.places
        for block in self.blocks:
            features_IKV = features_IKV + block(features_IKV)
        return features_IKV

    def sharding_units(self) -> Sequence[nn.Module]:
        """The residual blocks."""
        return list(self.blocks)
