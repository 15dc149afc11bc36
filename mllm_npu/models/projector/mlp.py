"""Project every feature (or every square of neighbouring features) by itself, through a small MLP.

Shape letters: I tiles, K tokens of a tile, V input width, Q tokens given, D output width.
"""

from __future__ import annotations

import difflib

from torch import Tensor, nn
from transformers.activations import ACT2CLS, ACT2FN

from mllm_npu.errors import ConfigError
from mllm_npu.models.interfaces import Projector
from mllm_npu.models.positions import grid_side
from mllm_npu.ops.gelu import GELU


class MLPProjector(Projector):
    """Layer norm, then ``depth`` linear layers with an activation between them.

    Args:
        input_dim: V.
        output_dim: D.
        num_queries: Q.
        num_tokens: K; None means Q. Where K is m x m times Q, squares of m x m neighbours are
            joined into one token of width m * m * V before the MLP.
        depth: linear layers, at least 1.
        norm: whether the norm is there; released LLaVA projectors have none.
        bias: whether the linear layers have one.
        activation: "gelu" for the exact one, or another by its name in transformers.

    Raises:
        ConfigError: K is not a whole number of squares of Q, or no such activation.

    Source: LLaVA-1.5 (Liu et al. 2023) for the MLP, InternVL for the joining of neighbours.
    """

    def __init__(
        self,
        *,
        input_dim: int,
        output_dim: int,
        num_queries: int,
        num_tokens: int | None = None,
        depth: int = 2,
        norm: bool = True,
        bias: bool = True,
        activation: str = "gelu",
    ) -> None:
        super().__init__()
        num_tokens = num_queries if num_tokens is None else num_tokens
        self.input_dim, self.output_dim = input_dim, output_dim
        self.num_queries, self.num_tokens = num_queries, num_tokens
        self.bias, self.activation = bias, activation
        self._side, self._square = 0, 1
        if num_tokens != num_queries:
            self._side, given = (
                grid_side(count, part="MLPProjector") for count in (num_tokens, num_queries)
            )
            if self._side % given:
                raise ConfigError(
                    f"MLPProjector cannot join a {self._side}x{self._side} grid "
                    f"(num_tokens={num_tokens}) into {given}x{given} (num_queries={num_queries}); "
                    "choose edges that divide."
                )
            self._square = self._side // given
        if depth < 1:
            raise ConfigError(f"MLPProjector needs depth of at least 1, got {depth}.")
        joined = input_dim * self._square**2
        layers: list[nn.Module] = [nn.LayerNorm(joined)] if norm else []
        layers.append(nn.Linear(joined, output_dim, bias=bias))
        for _ in range(depth - 1):
            layers += [_activation(activation), nn.Linear(output_dim, output_dim, bias=bias)]
        self.mlp = nn.Sequential(*layers)

    def forward(self, features_IKV: Tensor) -> Tensor:
        """Project float [I, K, V] -> float [I, Q, D]."""
        return self.mlp(features_IKV if self._square == 1 else self._join(features_IKV))

    def _join(self, features_IKV: Tensor) -> Tensor:
        rows, square = self._side // self._square, self._square
        grid = features_IKV.reshape(len(features_IKV), rows, square, rows, square, self.input_dim)
        return grid.transpose(2, 3).flatten(3).flatten(1, 2)


def _activation(name: str) -> nn.Module:
    if name == "gelu":
        return GELU()
    if name not in ACT2CLS:
        near = difflib.get_close_matches(name, list(ACT2CLS), n=3)
        raise ConfigError(
            f"MLPProjector was asked for activation={name!r}, which transformers does not know; "
            f"near names: {', '.join(near) or 'none'}."
        )
    return ACT2FN[name]
