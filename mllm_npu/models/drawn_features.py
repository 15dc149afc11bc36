"""Say which features of a picture are learnt to be drawn: pooled, and standardised if wished.

Shape letters: G drawn pictures, K vision tokens, P tokens per drawn picture, V vision width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from mllm_npu.errors import ConfigError, DataError
from mllm_npu.models.positions import grid_side
from mllm_npu.models.projector.average_pool import pool_grid

_SMALLEST_STD = 1e-4


class DrawnFeatures(nn.Module):
    """The space in which the language model predicts and the image decoder is conditioned.

    Args:
        width: V.
        num_tokens: P.
        normalize: subtract the mean and divide by the standard deviation of each of the V
            dimensions; they are measured once by ``calibrate`` and saved with the model. Without it
            features pass as they are.
        pooling: "grid" averages squares of the picture (K and P are squares); "sequence" averages K
            / P tokens that follow each other in a row, as the released SEED-X weights were trained.

    Raises:
        ConfigError: P is no square where the grid is pooled, or an unknown pooling.
    """

    mean: Tensor
    std: Tensor
    calibrated: Tensor

    def __init__(
        self,
        *,
        width: int,
        num_tokens: int,
        normalize: bool,
        pooling: Literal["grid", "sequence"] = "grid",
    ) -> None:
        super().__init__()
        if pooling not in ("grid", "sequence"):
            raise ConfigError(
                f"DrawnFeatures was asked for pooling={pooling!r}; choose grid or sequence."
            )
        if pooling == "grid":
            grid_side(num_tokens, part="DrawnFeatures")
        self.width, self.num_tokens, self.normalize, self.pooling = (
            width,
            num_tokens,
            normalize,
            pooling,
        )
        if normalize:
            self.register_buffer("mean", torch.zeros(width))
            self.register_buffer("std", torch.ones(width))
            self.register_buffer("calibrated", torch.zeros((), dtype=torch.bool))

    def forward(self, features_GKV: Tensor) -> Tensor:
        """Pool and standardise what the encoder gives, float [G, K, V] -> float [G, P, V]."""
        pooled_GPV = self.pool(features_GKV)
        return (pooled_GPV - self.mean) / self.std if self.normalize else pooled_GPV

    def pool(self, features_GKV: Tensor) -> Tensor:
        """Average K tokens to P, float [G, K, V] -> float [G, P, V].

        Raises:
            DataError: K tokens cannot be averaged to P.
        """
        num_given = features_GKV.shape[1]
        if self.pooling == "grid":
            return pool_grid(features_GKV, self.num_tokens)
        if num_given % self.num_tokens:
            raise DataError(
                f"{num_given} vision tokens cannot be averaged to {self.num_tokens} in a row."
            )
        groups = (self.num_tokens, num_given // self.num_tokens)
        return features_GKV.reshape(len(features_GKV), *groups, features_GKV.shape[2]).mean(2)

    @torch.no_grad()
    def calibrate(self, features_GKV: Tensor) -> None:
        """Measure mean and standard deviation per dimension; once, before training.

        Raises:
            DataError: fewer than two features were given.
        """
        if not self.normalize:
            return
        pooled = self.pool(features_GKV).flatten(0, 1).float()
        if len(pooled) < 2:
            raise DataError(
                f"DrawnFeatures.calibrate needs at least two features, got {len(pooled)}."
            )
        self.mean.copy_(pooled.mean(0))
        self.std.copy_(pooled.std(0) + _SMALLEST_STD)
        self.calibrated.fill_(True)

    @property
    def is_calibrated(self) -> bool:
        """Whether standardisation is off or was measured; asks the device, so not for a step."""
        return not self.normalize or bool(self.calibrated)
