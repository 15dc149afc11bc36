"""One line of JSON for each example that was asked, for people and scripts to read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from mllm_npu.evaluate.runner import TaskResult
from mllm_npu.evaluate.task import Record
from mllm_npu.processing.conversation import Text


def record_lines(results: Sequence[TaskResult]) -> Iterator[str]:
    """Lines of records.jsonl, in the order of tasks and examples."""
    for result in results:
        for record in result.records:
            yield json.dumps(_to_json(result.task.name, record), ensure_ascii=False) + "\n"


def _to_json(task: str, record: Record) -> dict[str, object]:
    example, reply = record.example, record.reply
    turns = example.conversation.turns
    line: dict[str, object] = {
        "task": task,
        "example": example.name,
        "question": [p.text for turn in turns for p in turn.parts if isinstance(p, Text)],
        "answer": example.answer,
        "reply": reply.text,
        "num_pictures": len(reply.pictures),
        "understood": record.understood,
        "score": record.score,
    }
    if example.groups:
        line["groups"] = list(example.groups)
    if reply.choices:
        line["choices"] = [[choice.text, round(choice.logprob, 4)] for choice in reply.choices]
    if record.refused is not None:
        line["refused"] = record.refused
    if record.seconds is not None:
        line["seconds"] = round(record.seconds, 3)
    return line
