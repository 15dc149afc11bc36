"""Train low-rank updates of chosen linear layers instead of the layers, and fold them in again.

A model may have no memory yet when updates are put into it. Then the order is: compose, apply,
shard, load the weights, and at last ``initialise_adapters`` (see `lora_values`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import combinations
from typing import Any

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from mllm_npu.errors import ConfigError

_ADAPTER_MARK = ".lora_"
BASE_MARK = ".base_layer."
"""Stands in the names of the values under an update."""


class LoraRecipe:
    """Which layers get a low-rank update, and of what size.

    Args:
        rank: inner width of an update.
        alpha: the update is scaled by alpha / rank.
        dropout: dropout in front of the update.
        targets: shell patterns over the names of the part's linear layers, such as ``*.q_proj``;
            ``*`` is all of them. Layers whose weight another layer shares have no update.
        part: name of the part of a model that gets the updates, such as ``image_decoder.unet``.
        dora: learn the length of each row of a weight apart from its direction, which alone gets
            the low-rank update.

    Raises:
        ConfigError: no targets, or a rank, alpha or dropout that makes no sense.

    Source: LoRA (Hu et al. 2021), DoRA (Liu et al. 2024), through peft.
    """

    def __init__(
        self,
        *,
        rank: int,
        alpha: float,
        dropout: float,
        targets: Sequence[str],
        part: str = "language_model",
        dora: bool = False,
    ) -> None:
        if rank < 1 or alpha <= 0 or not 0 <= dropout < 1 or not targets:
            raise ConfigError(
                f"LoRA was asked for rank={rank}, alpha={alpha}, dropout={dropout}, "
                f"targets={list(targets)}; it needs rank >= 1, alpha > 0, 0 <= dropout < 1 and at "
                "least one target."
            )
        self.rank, self.alpha, self.dropout, self.targets = rank, alpha, dropout, tuple(targets)
        self.part, self.dora = part, dora

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

        Where the part has no memory the updates have none either: see ``initialise_adapters``.

        Returns:
            The names of the layers that got one.

        Raises:
            ConfigError: a pattern matches no linear layer, or the part has updates already.
        """
        from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415 - slow import

        if has_lora([name for name, _ in part.named_parameters()]):
            raise ConfigError(
                "LoRA was asked for on a part that already has LoRA updates; merge them first."
            )
        linears = _linears(part)
        chosen = sorted({name for pattern in self.targets for name in _match(linears, pattern)})
        recipe = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            # A pattern: of a list, peft would take the ends of names as well.
            target_modules="|".join(map(re.escape, chosen)),
            use_dora=self.dora,
        )
        hollow = any(part.get_submodule(name).weight.is_meta for name in chosen)
        inject_adapter_in_model(recipe, part, low_cpu_mem_usage=hollow)
        for _, layer in adapted_layers(part):
            for _, update in updates_of(layer):
                # Updates without memory have not been given the type of their layer.
                update.to(layer.get_base_layer().weight.dtype)
        for name, parameter in part.named_parameters():
            parameter.requires_grad_(is_adapter(name))
        return chosen


class LoraRecipes:
    """Several recipes at once, each for a part of its own.

    Args:
        recipes: by any name; each says its part.
        alpha: of updates that the weights a run starts from hold, and that are folded in; None
            takes it from a file beside them.

    Raises:
        ConfigError: no recipe, or two for the same layers.
    """

    def __init__(self, *, recipes: Mapping[str, LoraRecipe], alpha: float | None = None) -> None:
        if not recipes:
            raise ConfigError("LoRA was asked for without a recipe. Add one: +lora@lora.recipes.X=")
        for one, two in combinations([recipe.part for recipe in recipes.values()], 2):
            if f"{one}.".startswith(f"{two}.") or f"{two}.".startswith(f"{one}."):
                raise ConfigError(
                    f"LoRA was asked for on {one!r} and on {two!r}, which hold the same layers. "
                    "Give one recipe for both, or two parts that lie apart."
                )
        self.recipes, self.alpha = dict(recipes), alpha

    def part_of(self, model: nn.Module) -> nn.Module:
        """What ``apply`` takes: the whole model."""
        return model

    def apply(self, model: nn.Module) -> list[str]:
        """Put the updates of every recipe into its part, in place.

        Returns:
            The names of the layers that got one.

        Raises:
            ConfigError: see ``LoraRecipe``.
        """
        return [
            f"{recipe.part}.{name}"
            for recipe in self.recipes.values()
            for name in recipe.apply(recipe.part_of(model))
        ]


def merge_lora(model: nn.Module) -> int:
    """Fold all low-rank updates into their layers; the names are then those of the plain model.

    Returns:
        How many layers were merged; 0 where there are none.
    """
    adapted = list(adapted_layers(model))
    for name, layer in adapted:
        layer.merge()
        model.set_submodule(name, layer.get_base_layer())
    return len(adapted)


def has_lora(names: Sequence[str]) -> bool:
    """Whether parameter names come from a model with low-rank updates."""
    return any(is_adapter(name) or BASE_MARK in name for name in names)


def is_adapter(name: str) -> bool:
    """Whether a parameter of that name belongs to an update, not to the layer it updates."""
    return _ADAPTER_MARK in name


def plain_name(name: str) -> str:
    """The name a parameter has in the model without updates."""
    return name.replace(BASE_MARK, ".")


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Layers of peft inside a model, by name; peft is imported only where there are some."""
    if not any(is_adapter(name) for name, _ in model.named_parameters()):
        return
    from peft.tuners.lora import LoraLayer  # noqa: PLC0415 - slow import

    for name, layer in list(model.named_modules()):
        if isinstance(layer, LoraLayer):
            yield name, layer


def updates_of(layer: Any) -> Iterator[tuple[str, Any]]:
    """What holds the ``weight`` of each part of an update, lengths behind what they depend on."""
    for kind in ("lora_A", "lora_B", "lora_magnitude_vector"):
        for update in getattr(layer, kind).values():
            yield kind, update


def _linears(part: nn.Module) -> list[str]:
    """Linear layers an update can be put on, by name.

    Not the one inside torch's own attention, which reads its weight and never calls it, and none
    that shares its weight, since an update of one would change the other when it is folded in.
    """
    holders = Counter(id(p) for layer in part.modules() for p in layer.parameters(recurse=False))
    return [
        name
        for name, layer in part.named_modules()
        if isinstance(layer, nn.Linear)
        and not isinstance(layer, NonDynamicallyQuantizableLinear)
        and holders[id(layer.weight)] == 1
    ]


def _match(names: Sequence[str], pattern: str) -> list[str]:
    matched = [name for name in names if fnmatchcase(name, pattern)]
    if not matched:
        last = sorted({name.rpartition(".")[2] for name in names})
        raise ConfigError(
            f"LoRA target {pattern!r} matches none of {len(names)} linear layers; their last "
            f"names are: {', '.join(last)}."
        )
    return matched
