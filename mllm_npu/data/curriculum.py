"""Curriculum: weights of the data sets that change while a run goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mllm_npu.errors import ConfigError


class Curriculum:
    """Weights by step.

    The plan knows samples, not steps: how many packs a step takes depends on the number of ranks.
    So a step is a fixed number of samples here, and a stage begins at the same sample whatever the
    number of ranks.

    Args:
        samples_per_step: what an update takes on average, all ranks and micro-batches together;
            ``mllm-npu data stats`` says how many samples a pack has.
        stages: each ``{from_step: n, weights: {name of the data set: weight}}``, the first from
            step 0, in order. A data set that a stage does not name has weight 0 in it.

    Raises:
        ConfigError: if the stages are none, not in order, or without a weight.
    """

    def __init__(self, *, samples_per_step: float, stages: Sequence[Mapping[str, object]]) -> None:
        if not samples_per_step > 0:
            raise ConfigError(
                f"curriculum.samples_per_step={samples_per_step} was asked for. Use a number above "
                "0."
            )
        self.samples_per_step = samples_per_step
        self.stages = tuple(_read(stage) for stage in stages)
        begins = [begin for begin, _ in self.stages]
        if not begins or begins[0] != 0 or sorted(set(begins)) != begins:
            raise ConfigError(
                f"A curriculum with stages from the steps {begins} was asked for. Begin with "
                "from_step: 0, and give later stages in order."
            )

    def starts(self) -> list[int]:
        """First sample of each stage."""
        return [round(begin * self.samples_per_step) for begin, _ in self.stages]

    def weights(self, stage: int, names: Sequence[str]) -> list[float]:
        """Weights of the data sets in a stage.

        Raises:
            ConfigError: if it names a data set that is not there.
        """
        weights = self.stages[stage][1]
        unknown = sorted(set(weights) - set(names))
        if unknown:
            raise ConfigError(
                f"The curriculum weighs {unknown}, the data sets are {list(names)}. Correct the "
                "names."
            )
        return [weights.get(name, 0.0) for name in names]

    def __repr__(self) -> str:
        return f"Curriculum({self.samples_per_step}, {self.stages})"


def _read(stage: Mapping[str, object]) -> tuple[int, dict[str, float]]:
    begin, weights = stage.get("from_step"), stage.get("weights")
    if set(stage) != {"from_step", "weights"} or not isinstance(begin, int) or begin < 0:
        raise ConfigError(
            f"The stage {dict(stage)} of a curriculum was asked for. Write "
            "{from_step: 0, weights: {name: weight}}."
        )
    if not isinstance(weights, Mapping) or not all(
        isinstance(weight, int | float) and weight >= 0 and math.isfinite(weight)
        for weight in weights.values()
    ):
        raise ConfigError(f"The weights {weights} of a curriculum are no numbers from 0 on.")
    if not any(weights.values()):
        raise ConfigError(f"The stage from step {begin} weighs nothing. Give a weight above 0.")
    return begin, {str(name): float(weight) for name, weight in weights.items()}
