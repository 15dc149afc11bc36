"""Project a grid of features to a fixed number of tokens by attention from learnt queries.

Shape letters: I tiles, K tokens of a tile, V input width, Q queries, D output width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mllm_npu.errors import ConfigError
from mllm_npu.models.interfaces import Projector
from mllm_npu.models.positions import grid_side, sincos_grid
from mllm_npu.ops.dense_attention import attend
from mllm_npu.ops.gelu import GELU

_PART = "AttentionResampler"


class AttentionResampler(Projector):
    """Queries with grid positions look at keys with grid positions, once.

    Args:
        input_dim: V; a linear layer leads to D where they differ.
        output_dim: D, a multiple of 4 and of ``num_heads``.
        num_queries: Q, a square.
        num_heads: attention heads.
        layer_norm_eps: 1e-5 in the released projectors, 1e-6 in the pooling of the Qwen-VL encoder.
        feed_forward_ratio: hidden width over D of a residual feed-forward behind the attention; 0
            leaves it out, as the released projectors do. It pays for small models that start from
            nothing.

    Raises:
        ConfigError: sizes that do not fit each other.

    Source: Qwen-VL (Bai et al. 2023); parameter names as in the released SEED-X projectors.
    """

    pos_embed: Tensor

    def __init__(
        self,
        *,
        input_dim: int,
        output_dim: int,
        num_queries: int,
        num_heads: int = 4,
        layer_norm_eps: float = 1e-5,
        feed_forward_ratio: float = 0.0,
    ) -> None:
        super().__init__()
        if num_heads < 1 or output_dim % num_heads:
            raise ConfigError(
                f"{_PART} cannot split output_dim={output_dim} into num_heads={num_heads}; give a "
                "number of heads that divides it."
            )
        self.input_dim, self.output_dim, self.num_queries = input_dim, output_dim, num_queries
        side = grid_side(num_queries, part=_PART)
        self.register_buffer("pos_embed", sincos_grid(side, output_dim))
        self.query = nn.Parameter(
            nn.init.trunc_normal_(self.pos_embed.new_empty(num_queries, output_dim), std=0.02)
        )
        same = input_dim == output_dim
        self.kv_proj = nn.Identity() if same else nn.Linear(input_dim, output_dim, bias=False)
        self.attn = nn.MultiheadAttention(output_dim, num_heads, batch_first=True)
        self.ln_q = nn.LayerNorm(output_dim, eps=layer_norm_eps)
        self.ln_kv = nn.LayerNorm(output_dim, eps=layer_norm_eps)
        hidden = int(output_dim * feed_forward_ratio)
        self.feed_forward = _feed_forward(output_dim, hidden, layer_norm_eps) if hidden else None

    def forward(self, features_IKV: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Project float [I, K, V] -> float [I, Q, D]; K is a square.

        Args:
            features_IKV: features of a grid, row by row.
            attention_mask: added to the scores (or bool, True hides), [Q, K].
        """
        values_IKD = self.ln_kv(self.kv_proj(features_IKV))
        queries_QD = self.ln_q(self.query) + self.pos_embed
        keys_IKD = values_IKD + self._key_positions(values_IKD)
        out_IQD = self._attend(queries_QD, keys_IKD, values_IKD, attention_mask)
        return out_IQD if self.feed_forward is None else out_IQD + self.feed_forward(out_IQD)

    def _attend(
        self, queries_QD: Tensor, keys_IKD: Tensor, values_IKD: Tensor, mask_QK: Tensor | None
    ) -> Tensor:
        """What ``self.attn`` would give; the queries, equal for all tiles, are projected once."""
        if mask_QK is not None:
            queries_IQD = queries_QD.expand(len(keys_IKD), -1, -1).contiguous()
            return self.attn(
                queries_IQD, keys_IKD, values_IKD, attn_mask=mask_QK, need_weights=False
            )[0]
        parts = (queries_QD, keys_IKD, values_IKD)
        weights, biases = self.attn.in_proj_weight.chunk(3), self.attn.in_proj_bias.chunk(3)
        query_QHE, key, value = (
            _split_heads(F.linear(part, weight, bias), self.attn.num_heads)
            for part, weight, bias in zip(parts, weights, biases, strict=True)
        )
        out_IHQE = attend(
            query_QHE.transpose(0, 1).expand(len(keys_IKD), -1, -1, -1),
            key.transpose(1, 2),
            value.transpose(1, 2),
            mask=None,
            causal=False,
            scale=self.attn.head_dim**-0.5,
        )
        return self.attn.out_proj(out_IHQE.transpose(1, 2).flatten(2))

    def _key_positions(self, values_IKD: Tensor) -> Tensor:
        """The queries' positions stretched to the grid of the keys, [K, D]."""
        side = grid_side(values_IKD.shape[1], part=_PART)
        own = grid_side(self.num_queries, part=_PART)
        if side == own:
            return self.pos_embed
        grid = self.pos_embed.float().T.reshape(1, self.output_dim, own, own)
        grid = F.interpolate(grid, (side, side), mode="bicubic", align_corners=False)
        return grid[0].flatten(1).T.to(values_IKD.dtype)


def _split_heads(tokens: Tensor, num_heads: int) -> Tensor:
    return tokens.view(*tokens.shape[:-1], num_heads, tokens.shape[-1] // num_heads)


def _feed_forward(width: int, hidden: int, eps: float) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width, eps=eps), nn.Linear(width, hidden), GELU(), nn.Linear(hidden, width)
    )
