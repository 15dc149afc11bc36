"""The peak learning rate of every parameter, by patterns over the names."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping

from mllm_npu.errors import ConfigError
from mllm_npu.train.trainable import match_names

_BLOCK = re.compile(r"\.(\d+)\.")
_AT_THE_INPUT = re.compile(r"embed|token|conv1|(^|[._])(ln_pre|pre_layr?norm)")
"""What comes before the first block of an encoder: tables, patches, and the norm behind them."""


def peak_rates(
    names: Collection[str],
    *,
    lr: float,
    learning_rates: Mapping[str, float],
    lr_multipliers: Mapping[str, float],
    layer_decay: Mapping[str, float],
) -> dict[str, float]:
    """Peak learning rate by name.

    Args:
        names: of the parameters that are trained.
        lr: where no pattern says otherwise.
        learning_rates: takes the place of ``lr``; the last pattern that matches counts.
        lr_multipliers: factor on that; the last pattern that matches counts.
        layer_decay: factor on that from each block to the one below it (see ``layer_factors``).

    Raises:
        ConfigError: a pattern matches nothing, or a number is no rate.
    """
    rates = dict.fromkeys(names, lr)
    for pattern, rate in learning_rates.items():
        _require_rate("learning_rates", pattern, rate)
        rates.update(dict.fromkeys(match_names(names, pattern, what="learning_rates"), rate))
    factors = dict.fromkeys(names, 1.0)
    for pattern, factor in lr_multipliers.items():
        _require_rate("lr_multipliers", pattern, factor)
        factors.update(dict.fromkeys(match_names(names, pattern, what="lr_multipliers"), factor))
    for pattern, decay in layer_decay.items():
        for name, factor in layer_factors(names, pattern, decay).items():
            factors[name] *= factor
    return {name: rate * factors[name] for name, rate in rates.items()}


def layer_factors(names: Collection[str], pattern: str, decay: float) -> dict[str, float]:
    """Factors that shrink from the last block down to the input.

    The last block has ``decay``, the one before it its square, and so on down to the embeddings;
    what comes behind the blocks has 1. A block is what the first number in a name counts.

    Args:
        names: of the parameters that are trained.
        pattern: which of them, such as ``vision_encoder.*``.
        decay: above 0, at most 1.

    Raises:
        ConfigError: the pattern matches nothing, or no numbered blocks, or the decay is outside.

    Source: BEiT (Bao et al. 2022), ELECTRA (Clark et al. 2020).
    """
    if not 0 < decay <= 1:
        raise ConfigError(
            f"layer_decay of {pattern!r} is {decay}. Use a number above 0 and at most 1."
        )
    matched = match_names(names, pattern, what="layer_decay")
    blocks = {name: int(found[1]) for name in matched if (found := _BLOCK.search(name))}
    if not blocks:
        raise ConfigError(
            f"layer_decay: {pattern!r} matches {len(matched)} parameters, and none lies in a "
            f"numbered block ({matched[0]}). Name an encoder or a language model, as in "
            "'vision_encoder.*'."
        )
    top = max(blocks.values()) + 1
    levels = {name: blocks.get(name, -1 if _AT_THE_INPUT.search(name) else top) for name in matched}
    return {name: decay ** (top - level) for name, level in levels.items()}


def _require_rate(setting: str, pattern: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ConfigError(f"{setting} of {pattern!r} is {value}. Use a number from 0.")
