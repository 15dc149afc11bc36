"""One line of JSON for each example that was asked, for people and scripts to read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

from mllm_npu.evaluate.picture_shelf import PictureShelf
from mllm_npu.evaluate.prompt import list_texts
from mllm_npu.evaluate.runner import TaskResult
from mllm_npu.evaluate.task import Record
from mllm_npu.processing.conversation import Text
from mllm_npu.processing.raster import Picture

MOST_WITH_PICTURES = 1000
"""Examples of a task whose pictures are kept; of more, some at even distances."""


def record_lines(
    results: Sequence[TaskResult],
    shelf: PictureShelf | None = None,
    *,
    most: int = MOST_WITH_PICTURES,
) -> Iterator[str]:
    """Lines of records.jsonl, in the order of tasks and examples.

    Args:
        results: of the tasks.
        shelf: gets small copies of pictures; None keeps none.
        most: examples of a task whose pictures are kept.
    """
    for result in results:
        num = len(result.records)
        shown = {place * num // most for place in range(most)} if num > most else range(num)
        for place, record in enumerate(result.records):
            line = _to_json(result.task.name, record)
            if shelf is not None and place in shown:
                line |= _keep_pictures(record, shelf)
            yield json.dumps(line, ensure_ascii=False) + "\n"


def _to_json(task: str, record: Record) -> dict[str, object]:
    example, reply = record.example, record.reply
    texts, shots = list_texts(example)
    line: dict[str, object] = {
        "task": task,
        "example": example.name,
        "question": texts,
        "answer": example.answer,
        "reply": reply.text,
        "num_pictures": len(reply.pictures),
        "understood": record.understood,
        "score": record.score,
    }
    if shots:
        line["shots"] = shots
    if example.groups:
        line["groups"] = list(example.groups)
    if reply.choices:
        line["choices"] = [[choice.text, round(choice.logprob, 4)] for choice in reply.choices]
    if record.refused is not None:
        line["refused"] = record.refused
    if record.seconds is not None:
        line["seconds"] = round(record.seconds, 3)
    return line


def _keep_pictures(record: Record, shelf: PictureShelf) -> dict[str, object]:
    """Names of the copies of what was read, drawn and wanted, where there is some."""
    turns, truth = record.example.conversation.turns, record.example.truth
    shown = [p.picture for turn in turns for p in turn.parts if not isinstance(p, Text)]
    pictures: dict[str, Iterable[Picture]] = {
        "read": shown,
        "drawn": record.reply.pictures,
        "wanted": [] if truth is None else [truth],
    }
    kept = {
        key: [name for picture in own if (name := shelf.keep(picture)) is not None]
        for key, own in pictures.items()
    }
    return {f"pictures_{key}": names for key, names in kept.items() if names}
