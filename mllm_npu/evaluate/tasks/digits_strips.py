"""Read strips of two to six held-out digits, wide enough for several tiles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from mllm_npu.data.tasks.ocr import Ocr
from mllm_npu.evaluate.task import Example, Task, is_exact
from mllm_npu.evaluate.world_rows import read_rows, to_examples
from mllm_npu.inference.events import Reply
from mllm_npu.inference.options import GenerationOptions


class DigitStrips(Task):
    """Reads all digits of a strip in order; one wrong digit makes the strip wrong.

    Args:
        world: folder of the digits world.
        options: how replies are made.
        split: "valid" or "test".
    """

    name = "ocr_exact_match"
    title = "Strips of 2 to 6 held-out digits, read without a mistake"
    citation = "This project's digits world; strips composed of held-out scans only."

    def __init__(
        self,
        *,
        world: Path,
        options: GenerationOptions,
        split: Literal["valid", "test"] = "test",
    ) -> None:
        self.world = Path(world)
        self.options = options
        self.split = split

    def examples(self) -> Sequence[Example]:
        """All strips of the shards of the split."""
        return to_examples(read_rows(self.world, "ocr", self.split), Ocr(), self.options)

    def score(self, example: Example, reply: Reply) -> float:
        """1 for the whole row of digits."""
        return is_exact(example, reply)
