"""AdamW with learning rates and weight decay by parameter name, and its state by parameter name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mllm_npu.errors import ConfigError, TrainingError
from mllm_npu.train.learning_rates import peak_rates
from mllm_npu.train.trainable import match_names


class AdamW:
    """Recipe of an AdamW optimizer.

    Args:
        lr: peak learning rate of what no pattern names.
        betas: decay of the two moments.
        eps: added to the denominator.
        weight_decay: decoupled decay per update and learning rate.
        learning_rates: peak learning rate by name pattern, in place of ``lr``; the last match
            counts.
        lr_multipliers: factor on the learning rate by name pattern; the last match counts.
        layer_decay: factor on the learning rate from each block to the one below it, by name
            pattern (see ``layer_factors``).
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
        learning_rates: Mapping[str, float] | None = None,
        lr_multipliers: Mapping[str, float] | None = None,
        layer_decay: Mapping[str, float] | None = None,
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
        self.learning_rates = dict(learning_rates or {})
        self.lr_multipliers = dict(lr_multipliers or {})
        self.layer_decay = dict(layer_decay or {})
        self.no_decay = tuple(no_decay)
        self.decay_vectors = decay_vectors
        self.fused = fused

    def build(self, parameters: Mapping[str, nn.Parameter]) -> torch.optim.AdamW:
        """Make the optimizer; parameters with equal settings share a group.

        Args:
            parameters: what is trained, by name.

        Raises:
            TrainingError: there is nothing to train.
            ConfigError: a pattern matches nothing, or a number is no rate.
        """
        if not parameters:
            raise TrainingError(
                "Training was asked for, but no parameter is trainable. "
                "Set trainable to patterns of the parts to train, as in ['language_model.*']."
            )
        rates = peak_rates(
            parameters,
            lr=self.lr,
            learning_rates=self.learning_rates,
            lr_multipliers=self.lr_multipliers,
            layer_decay=self.layer_decay,
        )
        undecayed = {
            name
            for pattern in self.no_decay
            for name in match_names(parameters, pattern, what="no_decay")
        }
        groups: dict[tuple[float, float], list[tuple[str, nn.Parameter]]] = {}
        for name, parameter in parameters.items():
            decays = name not in undecayed and (self.decay_vectors or parameter.ndim >= 2)
            settings = (rates[name], self.weight_decay if decays else 0.0)
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


def initialise_state(optimizer: torch.optim.AdamW) -> None:
    """Make the moments before the first step, so that memory and names do not depend on the step.

    They are what the optimizer would make itself: zeros of the parameter's shape and placement.
    """
    fused = bool(optimizer.defaults["fused"])
    for parameter in _named(optimizer).values():
        state = optimizer.state[parameter]
        if not state:
            device = parameter.device if fused else torch.device("cpu")
            state["step"] = torch.zeros((), dtype=torch.float32, device=device)
            state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """State as ``<entry>/<parameter name>`` -> tensor; independent of groups and ranks."""
    return {
        f"{entry}/{name}": value
        for name, parameter in _named(optimizer).items()
        for entry, value in optimizer.state.get(parameter, {}).items()
    }


def _named(optimizer: torch.optim.Optimizer) -> dict[str, nn.Parameter]:
    return {
        name: parameter
        for group in optimizer.param_groups
        for name, parameter in zip(group["param_names"], group["params"], strict=True)
    }
