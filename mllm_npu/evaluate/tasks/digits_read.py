"""Which digit is this? Held-out scans, asked in wordings that training never has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mllm_npu.data.tasks.instruction import Instruction
from mllm_npu.evaluate.task import Example, Task, is_exact
from mllm_npu.evaluate.world_rows import read_rows, to_examples
from mllm_npu.inference.events import Reply
from mllm_npu.inference.options import GenerationOptions


class DigitReading(Task):
    """Names the digit of a scan in one word; nothing else counts as right.

    Args:
        world: folder of the digits world.
        options: how replies are made.
    """

    name = "comprehension_accuracy"
    title = "Which digit is this? Held-out scans, unseen wordings"
    citation = (
        "This project's digits world on UCI optical recognition of handwritten digits (Alpaydin "
        "and Kaynak 1998, as shipped by scikit-learn)."
    )

    def __init__(self, *, world: Path, options: GenerationOptions) -> None:
        self.world = world
        self.options = options

    def examples(self) -> Sequence[Example]:
        """Every held-out scan once."""
        rows = read_rows(self.world, "unseen", "test", question="read")
        return to_examples(rows, Instruction(), self.options)

    def score(self, example: Example, reply: Reply) -> float:
        """1 for the right word."""
        return is_exact(example, reply)
