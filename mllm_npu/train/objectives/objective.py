"""What a training stage minimises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Self

import torch
from torch import nn

from mllm_npu.batch import Batch, Losses
from mllm_npu.train.trainable import set_trainable


class Objective(nn.Module, ABC):
    """A model, what is trained of it, and its loss.

    Batches come from the host; an objective moves what it needs to its device, because some work
    (looking up tiles, pairing pictures and texts) is done on the host without waiting for a device.

    Args:
        model: what is exported.
        trainable: patterns over the model's parameter names (see ``set_trainable``); the rest is
            frozen and runs in evaluation mode. What an objective adds is always trained.
    """

    def __init__(self, *, model: nn.Module, trainable: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        set_trainable(model, trainable)

    @abstractmethod
    def counts(self, batch: Batch) -> dict[str, float]:
        """Number of elements behind each term ``forward`` gives, from host values alone."""

    @abstractmethod
    def forward(self, batch: Batch) -> Losses:
        """Losses of a batch on the host; per term the sum over its elements."""

    @abstractmethod
    def prepare(self, batches: Iterator[Batch]) -> None:
        """Work done once before the first step; the batches it takes come again in training."""

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """What the optimizer updates, by name as in the model (without a leading ``model.``)."""
        return {
            name.removeprefix("model."): parameter
            for name, parameter in self.named_parameters()
            if parameter.requires_grad
        }

    def train(self, mode: bool = True) -> Self:
        """Switch to training mode, frozen parts of the model left out (no dropout in them)."""
        super().train(mode)
        for part in self.model.children():
            part.train(mode and is_trained(part))
        return self


def is_trained(module: nn.Module) -> bool:
    """Whether any parameter of the module is trained."""
    return any(parameter.requires_grad for parameter in module.parameters())
