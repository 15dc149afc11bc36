"""Train low-rank updates of chosen linear layers instead of the layers, and fold them in again."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from mllm_npu.errors import ConfigError

_ADAPTER_MARK = ".lora_"
_BASE_MARK = ".base_layer."


class LoraRecipe:
    """Which layers get a low-rank update, and of what size.

    Args:
        rank: inner width of an update.
        alpha: the update is scaled by alpha / rank.
        dropout: dropout in front of the update.
        targets: shell patterns over the names of the part's linear layers, such as ``*.q_proj``.
        part: name of the part of a model that gets the updates, such as ``image_decoder.unet``.

    Raises:
        ConfigError: no targets, or a rank, alpha or dropout that makes no sense.

    Source: LoRA (Hu et al. 2021), through peft.
    """

    def __init__(
        self,
        *,
        rank: int,
        alpha: float,
        dropout: float,
        targets: Sequence[str],
        part: str = "language_model",
    ) -> None:
        if rank < 1 or alpha <= 0 or not 0 <= dropout < 1 or not targets:
            raise ConfigError(
                f"LoRA was asked for rank={rank}, alpha={alpha}, dropout={dropout}, "
                f"targets={list(targets)}; it needs rank >= 1, alpha > 0, 0 <= dropout < 1 and at "
                "least one target."
            )
        self.rank, self.alpha, self.dropout, self.targets = rank, alpha, dropout, tuple(targets)
        self.part = part

    def part_of(self, model: nn.Module) -> nn.Module:
        """The part of a model that gets the updates.

        Raises:
            ConfigError: the model has none of that name.
        """
        try:
            return model.get_submodule(self.part)
        except AttributeError as error:
            known = ", ".join(name for name, _ in model.named_children())
            raise ConfigError(
                f"LoRA was asked for on {self.part!r}, which {type(model).__name__} does not have. "
                f"It has: {known}, and what is in them."
            ) from error

    def apply(self, part: nn.Module) -> list[str]:
        """Put updates into ``part``, in place; everything else of it is frozen.

        Returns:
            The names of the layers that got one.

        Raises:
            ConfigError: a pattern matches no linear layer, or the part has updates already.
        """
        from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415 - slow import

        if any(_ADAPTER_MARK in name for name, _ in part.named_parameters()):
            raise ConfigError(
                "LoRA was asked for on a part that already has LoRA updates; merge them first."
            )
        linears = [name for name, layer in part.named_modules() if isinstance(layer, nn.Linear)]
        chosen = sorted({name for pattern in self.targets for name in _match(linears, pattern)})
        recipe = LoraConfig(
            r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=chosen
        )
        inject_adapter_in_model(recipe, part)
        for name, parameter in part.named_parameters():
            parameter.requires_grad_(_ADAPTER_MARK in name)
        return chosen


def merge_lora(model: nn.Module) -> int:
    """Fold all low-rank updates into their layers; the names are then those of the plain model.

    Returns:
        How many layers were merged; 0 where there are none.
    """
    if not any(_ADAPTER_MARK in name for name, _ in model.named_parameters()):
        return 0
    from peft.tuners.lora import LoraLayer  # noqa: PLC0415 - slow import

    adapted = [
        (name, layer) for name, layer in model.named_modules() if isinstance(layer, LoraLayer)
    ]
    for name, layer in adapted:
        layer.merge()
        parent_name, _, child_name = name.rpartition(".")
        setattr(model.get_submodule(parent_name), child_name, layer.get_base_layer())
    return len(adapted)


def has_lora(names: Sequence[str]) -> bool:
    """Whether parameter names come from a model with low-rank updates."""
    return any(_ADAPTER_MARK in name or _BASE_MARK in name for name in names)


def _match(names: Sequence[str], pattern: str) -> list[str]:
    matched = [name for name in names if fnmatchcase(name, pattern)]
    if not matched:
        last = sorted({name.rpartition(".")[2] for name in names})
        raise ConfigError(
            f"LoRA target {pattern!r} matches none of {len(names)} linear layers; their last "
            f"names are: {', '.join(last)}."
        )
    return matched
