"""Read rows of a made world and ask them as examples.

``<world>/<kind>/<split>-*.tar`` holds the rows; ``meta`` in their json says what a judge needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from mllm_npu.data.row import Row
from mllm_npu.data.shard_set import ShardSet
from mllm_npu.data.tasks.task import Task as DataTask
from mllm_npu.evaluate.question import answer_text, cut_answer
from mllm_npu.evaluate.task import Example
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import DrawnImage
from mllm_npu.processing.raster import to_pillow


def read_rows(world: Path, kind: str, split: str, *, question: str | None = None) -> list[Row]:
    """Rows of one kind and split, in the order of the shards.

    Args:
        world: folder of the world.
        kind: of row (caption, ocr, instruction, ...).
        split: train, valid or test.
        question: keeps only rows whose meta names this kind of question.

    Raises:
        DataError: if there are no such shards, or they cannot be read.
    """
    shards = ShardSet(shards=str(world / kind / f"{split}-*.tar"))
    rows = [shards.row(number) for number in range(len(shards))]
    return [row for row in rows if question is None or meta_of(row).get("kind") == question]


def meta_of(row: Row) -> dict[str, Any]:
    """What a row's json says for judges; empty where it says nothing."""
    meta = row.json().get("meta", {})
    return meta if isinstance(meta, dict) else {}


def to_example(row: Row, task: DataTask, options: GenerationOptions) -> Example:
    """A row as it is taught, cut before its answer.

    Raises:
        DataError: if the row has no question with an answer.
    """
    conversation, answer = cut_answer(task.to_conversation(row, Random(row.key)))
    drawn = [to_pillow(part.picture) for part in answer if isinstance(part, DrawnImage)]
    return Example(
        name=row.key,
        conversation=conversation,
        answer=answer_text(answer),
        options=options,
        truth=drawn[0] if drawn else None,
    )


def to_examples(rows: Sequence[Row], task: DataTask, options: GenerationOptions) -> list[Example]:
    """Several rows, asked alike."""
    return [to_example(row, task, options) for row in rows]
