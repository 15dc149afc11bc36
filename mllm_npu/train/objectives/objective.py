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
        self._device: torch.device | None = None
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

    def sharding_units(self) -> list[nn.Module]:
        """Blocks of all parts that every rank calls equally often, in order of execution.

        What is no block, and parts that ranks call at will, stays around them: it is gathered as
        long as a forward and backward pass takes.
        """
        at_will = {id(part) for part in self.parts_called_at_will()}
        return [
            unit
            for part in self.modules()
            if part is not self and id(part) not in at_will and hasattr(part, "sharding_units")
            for unit in part.sharding_units()  # type: ignore[operator]
        ]

    def parts_called_at_will(self) -> Sequence[nn.Module]:
        """Parts whose calls depend on what this rank has seen, such as an encoder with a cache."""
        return ()

    @property
    def device(self) -> torch.device:
        """Where it computes: where it was told to, else where its parameters are."""
        return self._device or next(self.parameters()).device

    def compute_on(self, device: torch.device) -> None:
        """Say where to compute; parameters may wait elsewhere until they are needed."""
        self._device = device

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
