"""Encode tiles with the vision transformer of Qwen-VL and its attention pooling, as SEED-X does.

Shape letters: I tiles, H W pixels, N patches of a tile, C hidden width, K tokens of a tile, V its
width, A heads, E width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mllm_npu.errors import ConfigError, DataError
from mllm_npu.models.huggingface_config import resolve_dtype
from mllm_npu.models.interfaces import VisionEncoder
from mllm_npu.models.positions import grid_side
from mllm_npu.models.projector.attention_resampler import AttentionResampler
from mllm_npu.models.weights import load_weights
from mllm_npu.ops.dense_attention import attend
from mllm_npu.ops.gelu import gelu
from mllm_npu.ops.patch_embedding import patch_embedding

_PART = "QwenVisionEncoder"
_EPS = 1e-6
_POSITIONS = 256
"""Learnt positions, a grid of 16 x 16 that is stretched to the patches of a tile."""
_POOL_HEAD_WIDTH = 128
"""Width of a head of the pooling; the number of heads follows from it."""


class QwenVisionEncoder(VisionEncoder):
    """A pre-norm vision transformer whose patches are pooled to K tokens by attention.

    The names of its parameters are those of the released ``qwen_vit_G.pt``.

    Args:
        tile_size: pixels of a tile's edge, a multiple of ``patch_size``.
        patch_size: pixels of a patch's edge.
        hidden_width: C.
        num_layers: transformer blocks.
        num_heads: A, heads of a block.
        mlp_ratio: hidden width of a block's feed-forward over C, rounded down.
        width: V, a multiple of 128.
        num_tokens: K, a square.
        patch_positions: add a learnt embedding of where a tile lies in its picture before the last
            norm.
        mean: subtracted from each channel of a picture in 0..1.
        std: divides each channel after that.
        dtype: "float32", "bfloat16" or "float16" of the parameters.
        path: weights to start from; left out while the default device is meta.

    Raises:
        ConfigError: sizes that do not fit each other.
        WeightsError: the weights do not fit.

    Source: Qwen-VL (Bai et al. 2023), ViT-bigG of OpenCLIP; SEED-X (Ge et al. 2024).
    """

    def __init__(
        self,
        *,
        tile_size: int = 448,
        patch_size: int = 14,
        hidden_width: int = 1664,
        num_layers: int = 48,
        num_heads: int = 16,
        mlp_ratio: float = 4.9231,
        width: int = 4096,
        num_tokens: int = 256,
        patch_positions: bool = False,
        mean: Sequence[float] = (0.48145466, 0.4578275, 0.40821073),
        std: Sequence[float] = (0.26862954, 0.26130258, 0.27577711),
        dtype: str = "float32",
        path: str | None = None,
    ) -> None:
        super().__init__()
        _check_sizes(tile_size, patch_size, hidden_width, num_heads, width)
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ConfigError(
                f"{_PART} needs three means and three positive stds, got mean={mean} and std={std}."
            )
        self.tile_size, self.patch_size = tile_size, patch_size
        self.width, self.num_tokens = width, num_tokens
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        meta = torch.get_default_device().type == "meta"
        # With weights to come, nothing is drawn at random first.
        with torch.device("meta" if path is not None or meta else torch.get_default_device()):
            self.conv1 = nn.Conv2d(3, hidden_width, patch_size, patch_size, bias=False)
            self.positional_embedding = nn.Parameter(
                torch.randn(_POSITIONS, hidden_width) * hidden_width**-0.5
            )
            self.ln_pre = nn.LayerNorm(hidden_width, eps=_EPS)
            self.transformer = _Transformer(
                [
                    _Block(hidden_width, num_heads, int(hidden_width * mlp_ratio))
                    for _ in range(num_layers)
                ]
            )
            self.attn_pool = AttentionResampler(
                input_dim=hidden_width,
                output_dim=width,
                num_queries=num_tokens,
                num_heads=width // _POOL_HEAD_WIDTH,
                layer_norm_eps=_EPS,
            )
            self.ln_post = nn.LayerNorm(width, eps=_EPS)
            self.proj = nn.Parameter(torch.randn(width, width) * width**-0.5)
            self.patch_pos_embed = (
                nn.Parameter(torch.randn(4, width) * width**-0.5) if patch_positions else None
            )
        self.to(resolve_dtype(dtype, part=_PART))
        if path is not None and not meta:
            load_weights(self, path)

    def forward(self, tiles_I3HW: Tensor, tile_positions_I2: Tensor | None = None) -> Tensor:
        """Encode tiles, uint8 or float 0..255 [I, 3, H, W] -> float [I, K, V].

        Args:
            tiles_I3HW: of ``tile_size``.
            tile_positions_I2: centres of the tiles in their pictures, needed with
                ``patch_positions``.

        Raises:
            DataError: tiles of another size, or positions that are missing or not taken.
        """
        if tiles_I3HW.shape[1:] != (3, self.tile_size, self.tile_size):
            raise DataError(
                f"The vision encoder takes tiles [I, 3, {self.tile_size}, {self.tile_size}], got "
                f"{list(tiles_I3HW.shape)}; set the tile size of the processor to "
                f"{self.tile_size}."
            )
        channels = zip(tiles_I3HW.to(self.proj.dtype).unbind(1), self.mean, self.std, strict=True)
        pixels = [(channel * (1 / 255) - mean) * (1 / std) for channel, mean, std in channels]
        return self.encode_pixels(torch.stack(pixels, 1), tile_positions_I2)

    def encode_pixels(self, pixels_I3HW: Tensor, tile_positions_I2: Tensor | None = None) -> Tensor:
        """Encode normalised pixels of any grid of whole patches, float -> float [I, K, V].

        Raises:
            DataError: positions that are missing or not taken.
        """
        if (tile_positions_I2 is None) != (self.patch_pos_embed is None):
            raise DataError(
                f"{_PART} was built with patch_positions={self.patch_pos_embed is not None} and "
                f"given tile positions: {tile_positions_I2 is not None}. Give them exactly then."
            )
        grid_ICHW = patch_embedding(pixels_I3HW, self.conv1.weight)
        hidden_INC = grid_ICHW.flatten(2).transpose(1, 2)
        hidden_INC = self.ln_pre(hidden_INC + self._positions(*grid_ICHW.shape[2:]))
        for block in self.transformer.resblocks:
            hidden_INC = block(hidden_INC)
        pooled_IKV = self.attn_pool(hidden_INC)
        if self.patch_pos_embed is not None and tile_positions_I2 is not None:
            places_I4 = torch.cat([tile_positions_I2, 1 - tile_positions_I2], 1) / 2
            places_IV = places_I4.to(pooled_IKV.dtype) @ self.patch_pos_embed
            pooled_IKV = pooled_IKV + places_IV[:, None]
        return self.ln_post(pooled_IKV) @ self.proj

    def sharding_units(self) -> Sequence[nn.Module]:
        """Transformer blocks in order of execution."""
        return list(self.transformer.resblocks)

    def _positions(self, height: int, width: int) -> Tensor:
        """The learnt grid of positions stretched to the grid of patches, float [N, C]."""
        own = grid_side(len(self.positional_embedding), part=_PART)
        if (own, own) == (height, width):
            return self.positional_embedding
        grid = self.positional_embedding.float().T.reshape(1, -1, own, own)
        grid = F.interpolate(grid, (height, width), mode="bicubic", align_corners=False)
        return grid[0].flatten(1).T.to(self.positional_embedding.dtype)


class _Transformer(nn.Module):
    """Holds the blocks under the released name."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(blocks)


class _Attention(nn.Module):
    """Self-attention without a mask; query, key and value of a head lie side by side in in_proj."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, hidden_INC: Tensor) -> Tensor:
        """Float [I, N, C] -> float [I, N, C]."""
        heads_INA3E = self.in_proj(hidden_INC).unflatten(-1, (self.num_heads, -1))
        query, key, value = (part.transpose(1, 2) for part in heads_INA3E.chunk(3, -1))
        scale = query.shape[-1] ** -0.5
        attended_IANE = attend(query, key, value, mask=None, causal=False, scale=scale)
        return self.out_proj(attended_IANE.transpose(1, 2).flatten(2))


class _FeedForward(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, hidden)
        self.c_proj = nn.Linear(hidden, width)

    def forward(self, hidden_INC: Tensor) -> Tensor:
        """Float [I, N, C] -> float [I, N, C]."""
        return self.c_proj(gelu(self.c_fc(hidden_INC)))


class _Block(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, width: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=_EPS)
        self.ln_2 = nn.LayerNorm(width, eps=_EPS)
        self.attn = _Attention(width, num_heads)
        self.mlp = _FeedForward(width, hidden)

    def forward(self, hidden_INC: Tensor) -> Tensor:
        """Float [I, N, C] -> float [I, N, C]."""
        hidden_INC = hidden_INC + self.attn(self.ln_1(hidden_INC))
        return hidden_INC + self.mlp(self.ln_2(hidden_INC))


def _check_sizes(
    tile_size: int, patch_size: int, hidden_width: int, num_heads: int, width: int
) -> None:
    if patch_size < 1 or tile_size % patch_size or tile_size < patch_size:
        raise ConfigError(
            f"{_PART} cannot cut tile_size={tile_size} into whole patches of "
            f"patch_size={patch_size}; choose a multiple."
        )
    if num_heads < 1 or hidden_width < 1 or hidden_width % num_heads:
        raise ConfigError(
            f"{_PART} cannot split hidden_width={hidden_width} into num_heads={num_heads}; give a "
            "number of heads that divides it."
        )
    if width % _POOL_HEAD_WIDTH:
        raise ConfigError(
            f"{_PART} pools with heads of {_POOL_HEAD_WIDTH}, so width={width} must be a multiple "
            "of that."
        )
