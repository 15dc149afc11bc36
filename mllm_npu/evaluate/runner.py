"""Put the examples of tasks to an engine and add the scores up."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mllm_npu.errors import DataError
from mllm_npu.evaluate.task import Example, Task
from mllm_npu.inference.engine import Engine
from mllm_npu.inference.events import Reply

Progress = Callable[[int, int], None]


class Meter:
    """Counts what is done of what is known so far, and tells whoever shows it.

    Args:
        progress: called with (done, total); None shows nothing.
    """

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress
        self.done = 0
        self.total = 0

    def expect(self, number: int) -> None:
        """So many more are to come."""
        self.total += number
        self._show()

    def advance(self, number: int) -> None:
        """So many more are done."""
        self.done += number
        self._show()

    def _show(self) -> None:
        if self._progress is not None:
            self._progress(self.done, self.total)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One example with its reply.

    Args:
        example: the question.
        reply: what the model said and drew.
        understood: the reply as the score understood it.
        score: 0..1.
    """

    example: Example
    reply: Reply
    understood: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """All records of a task.

    Args:
        task: what was asked.
        records: in the order of the examples, at least one.
    """

    task: Task
    records: tuple[Record, ...]

    @property
    def value(self) -> float:
        """Mean score."""
        return sum(record.score for record in self.records) / len(self.records)


def run_tasks(
    tasks: Sequence[Task], engine: Engine, *, limit: int | None = None, meter: Meter | None = None
) -> list[TaskResult]:
    """Answer every example of every task.

    Args:
        tasks: in the order in which they run.
        engine: answers.
        limit: examples per task; None takes all.
        meter: is told of every example.

    Raises:
        DataError: if a task has no examples.
    """
    meter = meter or Meter()
    asked = [list(task.examples())[:limit] for task in tasks]
    for task, examples in zip(tasks, asked, strict=True):
        if not examples:
            raise DataError(f"Task {task.name} has no examples. Make the data of its world again.")
        meter.expect(len(examples))
    return [
        _run_task(task, examples, engine, meter)
        for task, examples in zip(tasks, asked, strict=True)
    ]


def standard_error(scores: Sequence[float]) -> float:
    """Standard error of the mean, from the sample variance; 0 for fewer than two scores."""
    if len(scores) < 2:
        return 0.0
    mean = sum(scores) / len(scores)
    variance = sum((score - mean) ** 2 for score in scores) / (len(scores) - 1)
    return math.sqrt(variance / len(scores))


def _run_task(task: Task, examples: Sequence[Example], engine: Engine, meter: Meter) -> TaskResult:
    replies = engine.reply_many(
        [example.conversation for example in examples],
        [example.options for example in examples],
        meter.advance,
    )
    records = tuple(
        Record(
            example=example,
            reply=reply,
            understood=task.explain(example, reply),
            score=task.score(example, reply),
        )
        for example, reply in zip(examples, replies, strict=True)
    )
    return TaskResult(task=task, records=records)
