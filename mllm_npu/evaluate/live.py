"""Put evaluation tasks to a model while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mllm_npu.distributed.placed import Placed
from mllm_npu.errors import ConfigError
from mllm_npu.evaluate.runner import run_share
from mllm_npu.evaluate.task import Task
from mllm_npu.inference.engine import Engine
from mllm_npu.inference.events import Reply
from mllm_npu.probe import Measured, Probe
from mllm_npu.processing.processor import Processor

_COLUMNS = 8
_GAP = 2


class LiveTasks(Probe):
    """Scores of tasks by the model as it is, and the pictures it draws.

    The whole model is gathered on every rank for as long as this takes; each rank then answers
    questions of its own, as many as there are.

    Args:
        every: see Probe.
        processor: of the model.
        tasks: any tasks of evaluation.
        limit: examples per task over all ranks; None takes all.
        num_pictures: drawn pictures per task that are kept to look at.
        max_batch: requests that advance together on a rank.

    Raises:
        ConfigError: no task, or two of one name.
    """

    def __init__(
        self,
        *,
        every: int,
        processor: Processor,
        tasks: Sequence[Task],
        limit: int | None = 64,
        num_pictures: int = 32,
        max_batch: int = 64,
    ) -> None:
        super().__init__(every=every)
        names = [task.name for task in tasks]
        if not names or len(set(names)) < len(names):
            raise ConfigError(
                f"Tasks {names} were asked for. Give at least one, with names that differ."
            )
        self.processor = processor
        self.tasks = tuple(tasks)
        self.limit = limit
        self.num_pictures = num_pictures
        self.max_batch = max_batch

    def measure(self, placed: Placed) -> Measured:
        """See Probe; the mean score of each task under its name."""
        model: Any = placed.module.model
        was_training = placed.module.training
        engine = Engine(
            model=model,
            processor=self.processor,
            device=placed.device,
            max_batch=self.max_batch,
            moves=False,
        )
        values: dict[str, float] = {}
        pictures: dict[str, Tensor] = {}
        try:
            with placed.gathered(), torch.no_grad():
                for task in self.tasks:
                    values[task.name], grid = self._ask(task, engine, placed)
                    if grid is not None:
                        pictures[task.name] = grid
        finally:
            placed.module.train(was_training)
        return Measured(values=values, pictures=pictures)

    def _ask(self, task: Task, engine: Engine, placed: Placed) -> tuple[float, Tensor | None]:
        mesh = placed.mesh
        examples = list(task.examples())[: self.limit][mesh.rank :: mesh.world_size]
        mesh.progress.note(f"{task.name} on the live model")
        result = run_share(
            task, examples, engine, lambda _: mesh.progress.note(f"{task.name} on the live model")
        )
        sums = mesh.sum(
            {"score": sum(record.score for record in result.records), "count": len(examples)}
        )
        replies = [record.reply for record in result.records]
        return sums["score"] / max(sums["count"], 1.0), draw_grid(replies, self.num_pictures)


def draw_grid(replies: Sequence[Reply], most: int) -> Tensor | None:
    """The first pictures of replies side by side, uint8 [3, H, W]; None where there are none."""
    found = [picture for reply in replies for picture in reply.pictures][:most]
    if not found:
        return None
    pictures = [torch.from_numpy(np.array(picture.convert("RGB"))) for picture in found]
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    columns = min(_COLUMNS, len(pictures))
    rows = -(-len(pictures) // columns)
    grid = torch.full((rows * (height + _GAP), columns * (width + _GAP), 3), 255, dtype=torch.uint8)
    for number, picture in enumerate(pictures):
        top, left = (number // columns) * (height + _GAP), (number % columns) * (width + _GAP)
        grid[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return grid.permute(2, 0, 1).contiguous()
