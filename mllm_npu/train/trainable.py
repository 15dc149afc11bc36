"""Choose by name which parameters are trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from mllm_npu.errors import ConfigError
from mllm_npu.models.lora import BASE_MARK


def set_trainable(module: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Switch ``requires_grad`` of every parameter; returns the names that are trained.

    Patterns are read in order and the last one that matches decides; ``!`` in front takes out
    (``["language_model.*", "!*.embed_tokens.*"]``). What no pattern matches is frozen, and so is a
    weight under a low-rank update, unless a pattern names it (``"*.base_layer.*"``).

    Args:
        module: whose parameters.
        patterns: shell patterns over the names of its parameters; none freezes everything.

    Raises:
        ConfigError: a pattern matches nothing.
    """
    parameters = dict(module.named_parameters())
    chosen: dict[str, bool] = dict.fromkeys(parameters, False)
    for pattern in patterns:
        named_below = BASE_MARK.strip(".") in pattern
        for name in match_names(parameters, pattern.removeprefix("!"), what="trainable"):
            is_below = BASE_MARK in name and not named_below
            chosen[name] = not pattern.startswith("!") and not is_below
    for name, parameter in parameters.items():
        parameter.requires_grad_(chosen[name])
    return [name for name, is_trained in chosen.items() if is_trained]


def match_names(names: Iterable[str], pattern: str, *, what: str) -> list[str]:
    """The names a shell pattern matches.

    Args:
        names: what there is.
        pattern: ``*`` stands for anything, dots too.
        what: which setting the pattern comes from, for the message.

    Raises:
        ConfigError: it matches none.
    """
    listed = list(names)
    matched = [name for name in listed if fnmatchcase(name, pattern)]
    if not matched:
        parts = sorted({".".join(name.split(".")[:2]) for name in listed})
        raise ConfigError(
            f"{what}: the pattern {pattern!r} matches no parameter. "
            f"Names begin with {parts[:12]}; a pattern covers the whole name, as in 'projector.*'. "
            "Correct it, or choose an objective made for this model."
        )
    return matched
