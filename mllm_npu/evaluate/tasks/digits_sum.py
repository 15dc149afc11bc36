"""Add the digits of two held-out scans."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mllm_npu.data.tasks.instruction import Instruction
from mllm_npu.evaluate.task import Example, Task, is_exact
from mllm_npu.evaluate.world_rows import read_rows, to_examples
from mllm_npu.inference.events import Reply
from mllm_npu.inference.options import GenerationOptions


class DigitSums(Task):
    """Says the sum of two pictures in one word.

    Args:
        world: folder of the digits world.
        options: how replies are made.
    """

    name = "sum_accuracy"
    title = "The sum of two held-out scans"
    citation = "This project's digits world; pairs of held-out scans only."

    def __init__(self, *, world: Path, options: GenerationOptions) -> None:
        self.world = world
        self.options = options

    def examples(self) -> Sequence[Example]:
        """All sums of the test shards."""
        rows = read_rows(self.world, "instruction", "test", question="sum")
        return to_examples(rows, Instruction(), self.options)

    def score(self, example: Example, reply: Reply) -> float:
        """1 for the right word."""
        return is_exact(example, reply)
