"""Make the tokens of joined tiles: each is one token of a tile, a learnt newline, or a mixture.

Shape letters: R tiles that are read, Q tokens per read tile, D language width, M tokens of joined
tiles, X tokens that one of those is made of.
"""

from __future__ import annotations

import torch
from torch import Tensor


def join_tokens(
    tokens_RQD: Tensor, newline_D: Tensor, sources_MX: Tensor, weights_MX: Tensor | None
) -> Tensor:
    """Gather and weigh tokens, float [R, Q, D] -> [M, D].

    Args:
        tokens_RQD: of all read tiles.
        newline_D: what source 0 is.
        sources_MX: 1 + i is the i-th token of the tiles one behind the other, int64.
        weights_MX: shares of those, float32; None where X is 1.
    """
    known_ND = torch.cat([newline_D.to(tokens_RQD.dtype)[None], tokens_RQD.flatten(0, 1)])
    if weights_MX is None:
        return known_ND.index_select(0, sources_MX[:, 0])
    parts = [
        known_ND.index_select(0, sources_M) * weights_M[:, None]
        for sources_M, weights_M in zip(sources_MX.unbind(1), weights_MX.unbind(1), strict=True)
    ]
    return torch.stack(parts).sum(0).to(tokens_RQD.dtype)
