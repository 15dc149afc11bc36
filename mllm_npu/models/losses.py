"""How far predicted features are from the true ones, one number per picture.

Shape letters: G drawn pictures, P tokens per drawn picture, V vision width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor

FeatureLoss = Callable[[Tensor, Tensor], Tensor]


def squared_error(predicted_GPV: Tensor, target_GPV: Tensor) -> Tensor:
    """Mean squared difference over tokens and dimensions, float32 [G]."""
    return (predicted_GPV.float() - target_GPV.float()).square().mean((1, 2))


def cosine_distance(predicted_GPV: Tensor, target_GPV: Tensor) -> Tensor:
    """One minus the cosine similarity, mean over tokens, float32 [G]."""
    return (1 - F.cosine_similarity(predicted_GPV.float(), target_GPV.float(), dim=-1)).mean(1)


FEATURE_LOSSES: Mapping[str, FeatureLoss] = {"mse": squared_error, "cosine": cosine_distance}
