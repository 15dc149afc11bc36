"""Answer questions about colours, shapes, numbers and places in unseen scenes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mllm_npu.data.tasks.instruction import Instruction
from mllm_npu.evaluate.task import Example, Task, is_exact
from mllm_npu.evaluate.world_rows import meta_of, read_rows, to_examples
from mllm_npu.inference.events import Reply
from mllm_npu.inference.options import GenerationOptions


class SceneQuestions(Task):
    """Answers in one word; nothing else counts as right.

    Args:
        world: folder of the scenes world.
        options: how replies are made.
    """

    name = "scenes_qa"
    title = "Questions about unseen compositions"
    citation = "This project's scenes world; compositions held out by their hash."

    def __init__(self, *, world: Path, options: GenerationOptions) -> None:
        self.world = world
        self.options = options

    def examples(self) -> Sequence[Example]:
        """All questions of the test shards but those that ask for the caption."""
        rows = read_rows(self.world, "question", "test")
        asked = [row for row in rows if meta_of(row).get("kind") != "describe"]
        return to_examples(asked, Instruction(), self.options)

    def score(self, example: Example, reply: Reply) -> float:
        """1 for the right word."""
        return is_exact(example, reply)
