"""A head that paints tiles back from their features, so that an encoder keeps what can be seen.

Shape letters: I tiles, H W pixels, K vision tokens, P patches, V width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mllm_npu.batch import Batch, whole_tiles
from mllm_npu.device.transfer import on_host
from mllm_npu.errors import ConfigError
from mllm_npu.ops.gelu import GELU


class Reconstruction(nn.Module):
    """Layer norm and a two-layer perceptron from pooled features to the pixels of each patch.

    Args:
        width: V, size of a feature.
        num_tokens: K, features per tile; a square grid.
        tile_size: pixels of a tile's edge.
        num_patches: P, grid the features are pooled to; None keeps K.
        hidden_width: of the perceptron.
    """

    def __init__(
        self,
        *,
        width: int,
        num_tokens: int,
        tile_size: int,
        num_patches: int | None = None,
        hidden_width: int = 192,
    ) -> None:
        super().__init__()
        self.token_grid = math.isqrt(num_tokens)
        self.patch_grid = math.isqrt(num_patches or num_tokens)
        self.patch_size = tile_size // max(1, self.patch_grid)
        squares = (num_tokens, num_patches or num_tokens)
        is_square = [math.isqrt(number) ** 2 == number for number in squares]
        if not all(is_square) or self.patch_size * self.patch_grid != tile_size:
            raise ConfigError(
                f"Reconstruction was asked to paint tiles of {tile_size} pixels from {squares[0]} "
                f"tokens in {squares[1]} patches. Both must be squares, and the patch grid must "
                "divide the tile."
            )
        self.layers = nn.Sequential(
            nn.LayerNorm(width, elementwise_affine=False),
            nn.Linear(width, hidden_width),
            GELU(),
            nn.Linear(hidden_width, 3 * self.patch_size**2),
        )

    def forward(self, features_IKV: Tensor, tiles_I3HW: Tensor) -> Tensor:
        """Mean squared error of each tile on the scale -1..1, float32 [I].

        Args:
            features_IKV: features of the tiles.
            tiles_I3HW: what to paint, uint8 or float 0..255.
        """
        num_tiles, _, width = features_IKV.shape
        grid = features_IKV.transpose(1, 2).reshape(num_tiles, width, self.token_grid, -1)
        pooled = F.adaptive_avg_pool2d(grid, self.patch_grid).flatten(2).transpose(1, 2)
        painted = self.layers(pooled).float()
        pixels = tiles_I3HW.float() / 127.5 - 1
        target = F.unfold(pixels, self.patch_size, stride=self.patch_size).transpose(1, 2)
        return (painted - target).square().mean(dim=(1, 2))


@on_host
def mark_real_tiles(batch: Batch) -> Tensor:
    """1 for every tile of a real sample, 0 for the blank one, float32 [I]; batch on the host."""
    weights = torch.zeros(batch.tiles.shape[0])
    is_real = torch.tensor([bool(source) for source in batch.sources])
    read_is_real = is_real[read_sequences(batch)]
    weights[batch.read_tiles[read_is_real]] = 1.0
    weights[batch.draw_tiles[batch.draw_weights > 0]] = 1.0
    return weights


@on_host
def count_real_tiles(batch: Batch) -> int:
    """Tiles of real samples; batch on the host."""
    return int(mark_real_tiles(batch).sum())


def read_sequences(batch: Batch) -> Tensor:
    """Sequence number of each read tile, int64 [R]; of a batch on the host."""
    ends = torch.tensor(batch.sequence_ends)
    return torch.searchsorted(ends, _read_places(batch), right=True)


def _read_places(batch: Batch) -> Tensor:
    """A place of each read tile, or of the picture it is a part of, int64 [R]."""
    if batch.grid_slots is None or batch.grid_sources is None:
        return batch.read_slots[:, 0].contiguous()
    wholes_M = whole_tiles(batch.grid_sources, batch.read_slots.shape[1])
    numbers_R = torch.arange(len(batch.read_tiles))
    return batch.grid_slots[torch.searchsorted(wholes_M, numbers_R)]
