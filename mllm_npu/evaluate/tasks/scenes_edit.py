"""Edit a scene as told ("make it red"); the whole resulting picture must be right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mllm_npu.data.row import Row
from mllm_npu.data.tasks.edit import Edit
from mllm_npu.data.worlds.scene_pictures import Scene, parse_scene
from mllm_npu.evaluate.judge_scenes import SceneJudge, describe_quarters, quarters_of
from mllm_npu.evaluate.task import Example, Task
from mllm_npu.evaluate.world_rows import meta_of, read_rows, to_example
from mllm_npu.inference.events import Reply
from mllm_npu.inference.options import GenerationOptions


class SceneEdits(Task):
    """Reads a scene and draws it changed. What was not to be changed must be as before.

    Args:
        world: folder of the scenes world.
        judge: says what a picture shows.
        options: how replies are made; every example has its own seed.
    """

    name = "scenes_edit_strict"
    title = "Edited unseen compositions, whole picture right"
    citation = "This project's scenes world; judged by template matching in each quarter."

    def __init__(self, *, world: Path, judge: SceneJudge, options: GenerationOptions) -> None:
        self.world = world
        self.judge = judge
        self.options = options
        self._scenes: dict[str, Scene] = {}

    def examples(self) -> Sequence[Example]:
        """Every edit of the test shards once."""
        rows = read_rows(self.world, "edit", "test")
        return [self._example(row, seed) for seed, row in enumerate(rows)]

    def score(self, example: Example, reply: Reply) -> float:
        """1 if every quarter of the first picture is as after the edit."""
        scene = self._scenes[example.name]
        return float(bool(reply.pictures) and self.judge.is_right(reply.pictures[0], scene))

    def explain(self, example: Example, reply: Reply) -> str:
        """What the judge sees."""
        if not reply.pictures:
            return "no picture"
        return describe_quarters(self.judge.look(reply.pictures[0]))

    def _example(self, row: Row, seed: int) -> Example:
        scene = parse_scene(meta_of(row)["after"])
        self._scenes[row.key] = scene
        example = to_example(row, Edit(), replace(self.options, seed=seed))
        return replace(example, answer=describe_quarters(quarters_of(scene)))
