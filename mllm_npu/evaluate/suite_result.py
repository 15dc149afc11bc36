"""What the suite of a world hands over: figures, replies and the material of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mllm_npu.evaluate.figure import Figure
from mllm_npu.evaluate.page import Choice, Confusion, Gallery
from mllm_npu.evaluate.runner import TaskResult


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteResult:
    """All that was measured in a world.

    Args:
        title: headline of the page.
        lead: what the page shows, in a sentence or two.
        figures: in the order of the page.
        results: all questions with their replies.
        choices: settings chosen on the validation split.
        galleries: pictures in rows.
        confusions: what is taken for what.
    """

    title: str
    lead: str
    figures: Sequence[Figure]
    results: Sequence[TaskResult]
    choices: Sequence[Choice] = ()
    galleries: Sequence[Gallery] = ()
    confusions: Sequence[Confusion] = ()
