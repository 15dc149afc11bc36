"""Draw unseen scenes from their description; the whole picture must be right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from mllm_npu.data.row import Row
from mllm_npu.data.tasks.instruction import Instruction
from mllm_npu.data.worlds.scene_pictures import Scene, parse_scene
from mllm_npu.evaluate.judge_scenes import SceneJudge, describe_quarters, quarters_of
from mllm_npu.evaluate.task import Example, Task
from mllm_npu.evaluate.world_rows import meta_of, read_rows, to_example
from mllm_npu.inference.events import Reply
from mllm_npu.inference.options import GenerationOptions

_VALID_SEED = 1_000_000
"""Noise of validation drawings starts here, far from that of the held-out ones."""


class SceneDrawing(Task):
    """Draws a described scene. A reply without a picture is wrong.

    Args:
        world: folder of the scenes world.
        split: "valid" or "test".
        judge: says what a picture shows.
        options: how replies are made; every example has its own seed.

    Attributes:
        scenes: what each example should show, by its name; known once examples were asked for.
    """

    name = "scenes_draw_strict"
    title = "Drawn unseen compositions, whole picture right"
    citation = "This project's scenes world; judged by template matching in each quarter."

    def __init__(
        self,
        *,
        world: Path,
        split: Literal["valid", "test"],
        judge: SceneJudge,
        options: GenerationOptions,
    ) -> None:
        self.world = world
        self.split = split
        self.judge = judge
        self.options = options
        self.scenes: dict[str, Scene] = {}

    def examples(self) -> Sequence[Example]:
        """Every description once, every drawing with its own noise."""
        first_seed = 0 if self.split == "test" else _VALID_SEED
        rows = read_rows(self.world, "draw", self.split)
        return [self._example(row, first_seed + number) for number, row in enumerate(rows)]

    def score(self, example: Example, reply: Reply) -> float:
        """1 if every quarter of the first picture is right."""
        scene = self.scenes[example.name]
        return float(bool(reply.pictures) and self.judge.is_right(reply.pictures[0], scene))

    def explain(self, example: Example, reply: Reply) -> str:
        """What the judge sees."""
        if not reply.pictures:
            return "no picture"
        return describe_quarters(self.judge.look(reply.pictures[0]))

    def share_of_quarters(self, example: Example, reply: Reply) -> float:
        """Share of quarters that are right, 0..1."""
        if not reply.pictures:
            return 0.0
        return self.judge.count_right(reply.pictures[0], self.scenes[example.name]) / 4

    def _example(self, row: Row, seed: int) -> Example:
        scene = parse_scene(meta_of(row)["objects"])
        self.scenes[row.key] = scene
        example = to_example(row, Instruction(), replace(self.options, seed=seed))
        return replace(example, answer=describe_quarters(quarters_of(scene)))
