"""Project a grid of features to a fixed number of tokens by attention from learnt queries.

Shape letters: I tiles, K tokens of a tile, V input width, Q queries, D output width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mllm_npu.errors import ConfigError
from mllm_npu.models.interfaces import Projector
from mllm_npu.models.positions import grid_side, sincos_grid

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
        out_IQD, _ = self.attn(
            queries_QD.expand(len(values_IKD), -1, -1),
            values_IKD + self._key_positions(values_IKD),
            values_IKD,
            attn_mask=attention_mask,
            need_weights=False,
        )
        return out_IQD if self.feed_forward is None else out_IQD + self.feed_forward(out_IQD)

    def _key_positions(self, values_IKD: Tensor) -> Tensor:
        """The queries' positions stretched to the grid of the keys, [K, D]."""
        side = grid_side(values_IKD.shape[1], part=_PART)
        own = grid_side(self.num_queries, part=_PART)
        if side == own:
            return self.pos_embed
        grid = self.pos_embed.float().T.reshape(1, self.output_dim, own, own)
        grid = F.interpolate(grid, (side, side), mode="bicubic", align_corners=False)
        return grid[0].flatten(1).T.to(values_IKD.dtype)


def _feed_forward(width: int, hidden: int, eps: float) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width, eps=eps), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)
    )
