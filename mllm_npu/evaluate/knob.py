"""Choose how pictures are drawn (guidance, steps) on the validation split, by a written rule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

RULE = (
    "The highest share judged right on the validation split wins. Settings whose share is lower by "
    "no more than one standard error of the best share, or by a single picture, are ties; among "
    "them the highest tie-break value wins. The held-out split is not looked at."
)


_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What one setting gave on the validation split.

    Args:
        guidance: classifier-free guidance scale.
        image_steps: solver steps.
        judged: share of pictures judged right.
        num: pictures drawn.
        tie_break: decides between equals, higher is better.
    """

    guidance: float
    image_steps: int
    judged: float
    num: int
    tie_break: float


def choose_trial(trials: Sequence[Trial]) -> Trial:
    """The trial that wins by ``RULE``."""
    best = max(trials, key=lambda trial: trial.judged)
    error = math.sqrt(best.judged * (1 - best.judged) / best.num)
    # A perfect share would have no error at all, yet the next picture may be wrong.
    noise = max(error, 1 / best.num) + _ROUNDING
    ties = [trial for trial in trials if trial.judged >= best.judged - noise]
    return max(ties, key=lambda trial: trial.tie_break)
