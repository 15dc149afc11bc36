"""Choose how pictures are drawn (guidance, steps) on the validation split, by a written rule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

RULE = (
    "The highest share judged right on the validation split wins. Settings whose share is lower by "
    "no more than one standard error (of the best share, with one right and one wrong picture "
    "added) are ties; among them the highest tie-break value wins. The held-out split is not "
    "looked at."
)


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
    # Without the two added drawings a perfect share would have no error at all.
    share = (best.judged * best.num + 1) / (best.num + 2)
    noise = math.sqrt(share * (1 - share) / best.num)
    ties = [trial for trial in trials if trial.judged >= best.judged - noise]
    return max(ties, key=lambda trial: trial.tie_break)
