"""Describe unseen scenes: every shape with its colour and place, in order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mllm_npu.data.tasks.caption import Caption
from mllm_npu.data.worlds.scene_words import DESCRIBE
from mllm_npu.evaluate.task import Example, Task, is_exact
from mllm_npu.evaluate.world_rows import read_rows, to_examples
from mllm_npu.inference.events import Reply
from mllm_npu.inference.options import GenerationOptions


class SceneCaptions(Task):
    """Writes the one caption of a scene; a single wrong word makes it wrong.

    Args:
        world: folder of the scenes world.
        options: how replies are made.
    """

    name = "scenes_caption_exact"
    title = "Captions of unseen compositions, right to the last word"
    citation = "This project's scenes world; compositions held out by their hash."

    def __init__(self, *, world: Path, options: GenerationOptions) -> None:
        self.world = world
        self.options = options

    def examples(self) -> Sequence[Example]:
        """All pictures of the test shards, asked as in training."""
        asked = Caption(draw_share=0.0, read_prompts=DESCRIBE, chat=True)
        return to_examples(read_rows(self.world, "caption", "test"), asked, self.options)

    def score(self, example: Example, reply: Reply) -> float:
        """1 for the whole caption."""
        return is_exact(example, reply)
