"""Put the examples of tasks to an engine and add the scores up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mllm_npu.distributed.mesh import Mesh
from mllm_npu.errors import DataError, RequestError
from mllm_npu.evaluate.answer_book import Answer, AnswerBook, question_key
from mllm_npu.evaluate.asker import Asker
from mllm_npu.evaluate.figure import Figure, Target, mean_figure
from mllm_npu.evaluate.task import Example, Record, Task
from mllm_npu.inference.engine import Engine

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
        if number:
            self._show()

    def _show(self) -> None:
        if self._progress is not None:
            self._progress(self.done, self.total)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """All records of a task.

    Args:
        task: what was asked.
        records: in the order of the examples, at least one.
        num_shots_dropped: solved examples left out of questions that were too long.
    """

    task: Task
    records: tuple[Record, ...]
    num_shots_dropped: int = 0

    @property
    def value(self) -> float:
        """Mean score."""
        return sum(record.score for record in self.records) / len(self.records)


def run_tasks(
    tasks: Sequence[Task],
    engine: Engine,
    *,
    limit: int | None = None,
    meter: Meter | None = None,
    book: AnswerBook | None = None,
    mesh: Mesh | None = None,
) -> list[TaskResult]:
    """Answer every example of every task, then score the replies.

    Args:
        tasks: in the order in which they run.
        engine: answers.
        limit: examples per task; None takes all.
        meter: is told of every example.
        book: knows answers that were given before; it is told of every new one.
        mesh: the ranks; each answers its share. They share the folder of the book, through which
            the first one gets all answers.

    Returns:
        Results in the order of the tasks; none on other ranks than the first, which alone scores.

    Raises:
        DataError: if a task has no examples.
        RequestError: a task needs a model that draws.
    """
    meter, mesh = meter or Meter(), mesh or Mesh.single()
    book = AnswerBook() if book is None else book
    for task in tasks:
        if task.needs_drawing and not engine.can_draw:
            raise RequestError(
                f"Task {task.name} asks for pictures, this model does not draw. Leave the task "
                "out, or evaluate a model with an image decoder."
            )
    asked = [list(task.examples())[:limit] for task in tasks]
    for task, examples in zip(tasks, asked, strict=True):
        if not examples:
            raise DataError(f"Task {task.name} has no examples. Make the data of its world again.")
        meter.expect(len(examples))
    asker = Asker(engine=engine, book=book, mesh=mesh, advance=meter.advance)
    fitted: list[list[Example]] = []
    for examples in asked:
        fitted.append([asker.shorten(example) for example in examples])
        asker.ask(fitted[-1])
    if mesh.world_size > 1:
        mesh.barrier()
        book.reload()
    if not mesh.is_main:
        return []
    return [
        _score(task, examples, put, book)
        for task, examples, put in zip(tasks, asked, fitted, strict=True)
    ]


def run_share(
    task: Task, examples: Sequence[Example], engine: Engine, advance: Callable[[int], None]
) -> TaskResult:
    """Answer and score some examples of a task in this process alone; there may be none.

    Args:
        task: scores.
        examples: some of its own.
        engine: answers.
        advance: is told how many more examples are done.
    """
    book = AnswerBook()
    asker = Asker(engine=engine, book=book, mesh=Mesh.single(), advance=advance)
    put = [asker.shorten(example) for example in examples]
    asker.ask(put)
    return _score(task, examples, put, book)


def figure_of(result: TaskResult, targets: Mapping[str, Target]) -> Figure:
    """The mean score of a task as a figure."""
    return mean_figure(
        name=result.task.name,
        title=result.task.title,
        values=[record.score for record in result.records],
        targets=targets,
        citation=result.task.citation,
    )


def _score(
    task: Task, examples: Sequence[Example], put: Sequence[Example], book: AnswerBook
) -> TaskResult:
    """Records of a task, in the order of its examples.

    Args:
        task: scores.
        examples: as the task gave them.
        put: the same as they were put.
        book: knows all answers.
    """
    answers = [_find(book, task, example) for example in put]
    pairs = list(zip(put, answers, strict=True))
    task.look([(example, answer.reply) for example, answer in pairs if answer.refused is None])
    dropped = sum(a.num_shots - b.num_shots for a, b in zip(examples, put, strict=True))
    return TaskResult(
        task=task,
        records=tuple(_make_record(task, example, answer) for example, answer in pairs),
        num_shots_dropped=dropped,
    )


def _find(book: AnswerBook, task: Task, example: Example) -> Answer:
    answer = book.find(question_key(example))
    if answer is None:
        raise DataError(
            f"The answer to {example.name} of {task.name} is missing: ranks do not see each "
            "other's files. Put the output into a folder that all of them share."
        )
    return answer


def _make_record(task: Task, example: Example, answer: Answer) -> Record:
    refused = answer.refused is not None
    return Record(
        example=example,
        reply=answer.reply,
        understood=None if refused else task.explain(example, answer.reply),
        score=0.0 if refused else task.score(example, answer.reply),
        seconds=answer.seconds,
        refused=answer.refused,
    )
