"""A running average of the trained weights; it draws and answers more calmly than the last ones."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from mllm_npu.errors import ConfigError


class Ema:
    """Exponential moving average in float32; a warm-up lets the first weights be forgotten soon.

    Of sharded weights each rank averages the rows it holds.

    Args:
        parameters: what is averaged, by name.
        decay: share of the old average that stays at each update, less in the first updates.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], *, decay: float) -> None:
        if not 0 < decay < 1:
            raise ConfigError(
                f"ema_decay={decay} was asked for. Use a number between 0 and 1, or null."
            )
        self.decay = decay
        self.num_updates = 0
        self._parameters = dict(parameters)
        # In half precision a step of 1 - decay is lost in rounding.
        self.averages = {name: p.detach().float().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the averages towards the weights as they are now."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        now = [_own(p.detach()).float() for p in self._parameters.values()]
        torch._foreach_lerp_([_own(a) for a in self.averages.values()], now, 1 - decay)
        self.num_updates += 1

    @torch.no_grad()
    def apply(self) -> None:
        """Put the averages in the place of the weights, for good."""
        for name, parameter in self._parameters.items():
            parameter.copy_(self.averages[name])


def _own(tensor: Tensor) -> Tensor:
    """The rows of a sharded tensor this rank holds, in place; any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
