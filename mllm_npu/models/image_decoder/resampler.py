"""Turn vision features into what a Stable Diffusion XL UNet takes for a text.

Shape letters: G pictures, P features of a picture, V their width, Q queries, D width, E width of a
head, X width of a text token, Y width of a pooled text.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mllm_npu.errors import ConfigError
from mllm_npu.ops.dense_attention import attend
from mllm_npu.ops.gelu import GELU

_NORMALIZED_AXIS = {"features": -1, "tokens": 1}


class ResamplerXLV2(nn.Module):
    """Learnt queries look at the features, layer by layer; every query becomes one text token.

    The names of its parameters are those of SEED-X's released de-tokenizer.

    Args:
        dim: D.
        depth: layers of attention and feed-forward.
        dim_head: E.
        heads: attention heads, of the layers and of the pooling.
        num_queries: Q, text tokens it gives.
        embedding_dim: V.
        output1_dim: width of the first part of a text token.
        output2_dim: width of the second part, and Y.
        ff_mult: hidden width of a feed-forward over D.
        normalize: scale the features it is given to length 1: "features" each token by itself;
            "tokens" each dimension over the tokens, as the original does where its ``normalize`` is
            true. False, as released, leaves them.

    Raises:
        ConfigError: sizes from which nothing can be built.

    Source: the Perceiver resampler of Flamingo (Alayrac et al. 2022) and IP-Adapter (Ye et al.
        2023); the pooling of CLIP (Radford et al. 2021).
    """

    def __init__(
        self,
        *,
        dim: int = 1024,
        depth: int = 4,
        dim_head: int = 64,
        heads: int = 16,
        num_queries: int = 64,
        embedding_dim: int = 4096,
        output1_dim: int = 768,
        output2_dim: int = 1280,
        ff_mult: int = 4,
        normalize: Literal[False, "features", "tokens"] = False,
    ) -> None:
        super().__init__()
        if min(dim, depth, dim_head, heads, num_queries, ff_mult) < 1 or dim % heads:
            raise ConfigError(
                f"ResamplerXLV2 was asked for dim={dim}, depth={depth}, dim_head={dim_head}, "
                f"heads={heads}, num_queries={num_queries}, ff_mult={ff_mult}; give numbers from 1 "
                "on, and heads that divide dim."
            )
        if normalize is not False and normalize not in _NORMALIZED_AXIS:
            raise ConfigError(
                f"ResamplerXLV2 was asked for normalize={normalize!r}; give false, features or "
                "tokens."
            )
        self.embedding_dim, self.num_queries = embedding_dim, num_queries
        self.prompt_dim, self.pooled_dim = output1_dim + output2_dim, output2_dim
        self.normalize = normalize
        self.latents = nn.Parameter(torch.randn(1, num_queries, dim) * dim**-0.5)
        self.proj_in = nn.Linear(embedding_dim, dim)
        self.layers = nn.ModuleList(
            nn.ModuleList([_Attention(dim, dim_head, heads), _feed_forward(dim, ff_mult)])
            for _ in range(depth)
        )
        self.norm_out = nn.LayerNorm(dim)
        self.unet_proj_1 = nn.Linear(dim, output1_dim)
        self.unet_proj_2 = nn.Linear(dim, output2_dim)
        self.unet_attnpool = _AttentionPool(num_queries, dim, heads, output2_dim)

    def forward(self, features_GPV: Tensor) -> tuple[Tensor, Tensor]:
        """Text tokens and pooled text, float [G, P, V] -> ([G, Q, X], [G, Y]); any P.

        Raises:
            ConfigError: features of another width.
        """
        if features_GPV.shape[-1] != self.embedding_dim:
            raise ConfigError(
                f"ResamplerXLV2 takes features of embedding_dim={self.embedding_dim}, got "
                f"{list(features_GPV.shape)}; set embedding_dim to the vision encoder's width."
            )
        if self.normalize:
            features_GPV = F.normalize(features_GPV, dim=_NORMALIZED_AXIS[self.normalize])
        seen_GPD = self.proj_in(features_GPV)
        hidden_GQD = self.latents.expand(len(seen_GPD), -1, -1)
        for pair in self.layers:
            attention, feed_forward = cast(nn.ModuleList, pair)
            hidden_GQD = hidden_GQD + attention(seen_GPD, hidden_GQD)
            hidden_GQD = hidden_GQD + feed_forward(hidden_GQD)
        hidden_GQD = self.norm_out(hidden_GQD)
        tokens_GQX = torch.cat([self.unet_proj_1(hidden_GQD), self.unet_proj_2(hidden_GQD)], -1)
        return tokens_GQX, self.unet_attnpool(hidden_GQD)


class _Attention(nn.Module):
    """Queries look at the features and at themselves."""

    def __init__(self, dim: int, dim_head: int, heads: int) -> None:
        super().__init__()
        self.heads, inner = heads, dim_head * heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)

    def forward(self, seen_GPD: Tensor, hidden_GQD: Tensor) -> Tensor:
        """Float [G, P, D], [G, Q, D] -> float [G, Q, D]."""
        seen, hidden = self.norm1(seen_GPD), self.norm2(hidden_GQD)
        key, value = self.to_kv(torch.cat([seen, hidden], 1)).chunk(2, -1)
        return self.to_out(_attend(self.to_q(hidden), key, value, self.heads))


class _AttentionPool(nn.Module):
    """The mean of the tokens looks at all of them, and at itself."""

    def __init__(self, num_tokens: int, dim: int, heads: int, output_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.randn(num_tokens + 1, dim) * dim**-0.5)
        self.k_proj, self.q_proj, self.v_proj = (nn.Linear(dim, dim) for _ in range(3))
        self.c_proj = nn.Linear(dim, output_dim)

    def forward(self, hidden_GQD: Tensor) -> Tensor:
        """Float [G, Q, D] -> float [G, Y]."""
        tokens = torch.cat([hidden_GQD.mean(1, keepdim=True), hidden_GQD], 1)
        tokens = tokens + self.positional_embedding
        query, key, value = self.q_proj(tokens[:, :1]), self.k_proj(tokens), self.v_proj(tokens)
        return self.c_proj(_attend(query, key, value, self.heads))[:, 0]


def _attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Attention of every head by itself, float [G, Q, D], [G, P, D], [G, P, D] -> [G, Q, D]."""
    parts = [_to_heads(part, heads) for part in (query, key, value)]
    scale = parts[0].shape[-1] ** -0.5
    attended = attend(*parts, mask=None, causal=False, scale=scale)
    return attended.transpose(1, 2).flatten(2)


def _to_heads(tokens: Tensor, heads: int) -> Tensor:
    return tokens.view(*tokens.shape[:2], heads, -1).transpose(1, 2)


def _feed_forward(dim: int, mult: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(dim),
        nn.Linear(dim, dim * mult, bias=False),
        GELU(),
        nn.Linear(dim * mult, dim, bias=False),
    )
