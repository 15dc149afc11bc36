"""AdamW with learning rates and weight decay by parameter name, and its state by parameter name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mllm_npu.distributed.checkpoint import check_fit
from mllm_npu.errors import ConfigError, TrainingError
from mllm_npu.train.trainable import match_names


class AdamW:
    """Recipe of an AdamW optimizer.

    Args:
        lr: peak learning rate.
        betas: decay of the two moments.
        eps: added to the denominator.
        weight_decay: decoupled decay per update and learning rate.
        lr_multipliers: factor on the learning rate by name pattern; the last match counts.
        no_decay: name patterns of parameters without weight decay.
        decay_vectors: whether parameters of fewer than two dimensions (biases, norms) decay too.
        fused: one kernel for the update, where the device has it.
    """

    def __init__(
        self,
        *,
        lr: float,
        betas: Sequence[float] = (0.9, 0.98),
        eps: float = 1e-8,
        weight_decay: float = 0.02,
        lr_multipliers: Mapping[str, float] | None = None,
        no_decay: Sequence[str] = (),
        decay_vectors: bool = False,
        fused: bool = True,
    ) -> None:
        if (
            not 0 <= lr < math.inf
            or len(betas) != 2
            or not all(0 <= beta < 1 for beta in betas)
            or eps <= 0
            or weight_decay < 0
        ):
            raise ConfigError(
                f"AdamW was asked for with lr={lr}, betas={list(betas)}, eps={eps}, "
                f"weight_decay={weight_decay}. Use lr and weight_decay from 0, two betas from 0 "
                "and below 1, and eps above 0."
            )
        self.lr = lr
        self.betas = (float(betas[0]), float(betas[1]))
        self.eps = eps
        self.weight_decay = weight_decay
        self.lr_multipliers = dict(lr_multipliers or {})
        self.no_decay = tuple(no_decay)
        self.decay_vectors = decay_vectors
        self.fused = fused

    def build(self, parameters: Mapping[str, nn.Parameter]) -> torch.optim.AdamW:
        """Make the optimizer; parameters with equal settings share a group.

        Args:
            parameters: what is trained, by name.

        Raises:
            TrainingError: there is nothing to train.
            ConfigError: a pattern matches nothing.
        """
        if not parameters:
            raise TrainingError(
                "Training was asked for, but no parameter is trainable. "
                "Set trainable to patterns of the parts to train, as in ['language_model.*']."
            )
        multipliers = dict.fromkeys(parameters, 1.0)
        for pattern, multiplier in self.lr_multipliers.items():
            names = match_names(parameters, pattern, what="lr_multipliers")
            multipliers.update(dict.fromkeys(names, multiplier))
        undecayed = {
            name
            for pattern in self.no_decay
            for name in match_names(parameters, pattern, what="no_decay")
        }
        groups: dict[tuple[float, float], list[tuple[str, nn.Parameter]]] = {}
        for name, parameter in parameters.items():
            decays = name not in undecayed and (self.decay_vectors or parameter.ndim >= 2)
            settings = (self.lr * multipliers[name], self.weight_decay if decays else 0.0)
            groups.setdefault(settings, []).append((name, parameter))
        return torch.optim.AdamW(
            [
                {"params": named, "lr": lr, "peak_lr": lr, "weight_decay": decay}
                for (lr, decay), named in groups.items()
            ],
            lr=self.lr,
            betas=self.betas,
            eps=self.eps,
            fused=self.fused,
        )


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Put every group at ``factor`` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """State as ``<entry>/<parameter name>`` -> tensor; independent of groups and ranks."""
    return {
        f"{entry}/{name}": value
        for name, parameter in _named(optimizer).items()
        for entry, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what ``optimizer_tensors`` gave; learning rates and decay stay those of this run.

    Raises:
        CheckpointError: names or shapes are not those of the parameters that are trained.
    """
    named = _named(optimizer)
    entries: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        entry, name = key.split("/", 1)
        entries.setdefault(name, {})[entry] = tensor
    moments = {name: state["exp_avg"] for name, state in entries.items() if "exp_avg" in state}
    # A parameter that has had no gradient yet has no state; it is not missing.
    expected = {name: p for name, p in named.items() if name in moments}
    check_fit("the trained parameters", expected=expected, found=moments)
    numbers = {name: number for number, name in enumerate(named)}
    state: dict[str, Any] = optimizer.state_dict()
    state["state"] = {numbers[name]: entry for name, entry in entries.items()}
    optimizer.load_state_dict(state)


def _named(optimizer: torch.optim.Optimizer) -> dict[str, nn.Parameter]:
    return {
        name: parameter
        for group in optimizer.param_groups
        for name, parameter in zip(group["param_names"], group["params"], strict=True)
    }
