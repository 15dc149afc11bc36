"""Put the examples of tasks to an engine and add the scores up."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mllm_npu.distributed.mesh import Mesh
from mllm_npu.errors import DataError, RequestError
from mllm_npu.evaluate.answer_book import Answer, AnswerBook, question_key
from mllm_npu.evaluate.choices import likeliest
from mllm_npu.evaluate.figure import Figure, Target, mean_figure
from mllm_npu.evaluate.prompt import drop_shot
from mllm_npu.evaluate.redrawing import redraw_examples
from mllm_npu.evaluate.task import Example, Record, Task
from mllm_npu.inference.engine import Engine
from mllm_npu.inference.events import Likelihood, Reply
from mllm_npu.processing.conversation import Text

Progress = Callable[[int, int], None]

_AT_ONCE = 512
"""Questions that are handed to an engine together."""


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
    """Answer every example of every task.

    Args:
        tasks: in the order in which they run.
        engine: answers.
        limit: examples per task; None takes all.
        meter: is told of every example.
        book: knows answers that were given before; it is told of every new one.
        mesh: the ranks; each answers its share, and all get all answers through the book, whose
            folder they share.

    Raises:
        DataError: if a task has no examples.
        RequestError: a task needs a model that draws.
    """
    meter = meter or Meter()
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
    asker = _Asker(
        engine=engine,
        meter=meter,
        book=book or AnswerBook(),
        mesh=mesh or Mesh.single(),
    )
    return [asker.run(task, examples) for task, examples in zip(tasks, asked, strict=True)]


def figure_of(result: TaskResult, targets: Mapping[str, Target]) -> Figure:
    """The mean score of a task as a figure."""
    return mean_figure(
        name=result.task.name,
        title=result.task.title,
        values=[record.score for record in result.records],
        targets=targets,
        citation=result.task.citation,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asker:
    """Asks what is not known yet."""

    engine: Engine
    meter: Meter
    book: AnswerBook
    mesh: Mesh

    def run(self, task: Task, examples: Sequence[Example]) -> TaskResult:
        """Records of a task, in the order of its examples."""
        fitted = [self._drop_shots(example) for example in examples]
        keys = [question_key(example) for example in fitted]
        unknown = {
            key: example
            for key, example in zip(keys, fitted, strict=True)
            if self.book.find(key) is None
        }
        self.meter.advance(sum(key not in unknown for key in keys))
        own = list(unknown.items())[self.mesh.rank :: self.mesh.world_size]
        self._ask([pair for pair in own if pair[1].choices], self._weigh)
        self._ask([pair for pair in own if pair[1].redraws], self._redraw)
        written = [pair for pair in own if not pair[1].choices and not pair[1].redraws]
        # The longest first: those that run together are of a length, and the end is near when it
        # seems so.
        self._ask(sorted(written, key=lambda pair: -_size(pair[1])), self._write)
        if self.mesh.world_size > 1:
            self.mesh.barrier()
            self.book.reload()
        answers = [self.book.find(key) for key in keys]
        task.look(
            [
                (example, answer.reply)
                for example, answer in zip(fitted, answers, strict=True)
                if answer is not None and answer.refused is None
            ]
        )
        records = [
            _make_record(task, example, answer)
            for example, answer in zip(fitted, answers, strict=True)
        ]
        dropped = sum(a.num_shots - b.num_shots for a, b in zip(examples, fitted, strict=True))
        return TaskResult(task=task, records=tuple(records), num_shots_dropped=dropped)

    def _drop_shots(self, example: Example) -> Example:
        room = example.options.max_new_tokens
        if example.choices:
            room = max(len(text.encode()) for text in example.choices)
        while example.num_shots and not self.engine.fits(example.conversation, room):
            place = example.first_shot + example.num_shots - 1
            example = dataclasses.replace(
                example,
                conversation=drop_shot(example.conversation, place),
                num_shots=example.num_shots - 1,
            )
        return example

    def _ask(
        self,
        pairs: Sequence[tuple[str, Example]],
        put: Callable[[Sequence[Example]], Iterator[tuple[int, Reply]]],
    ) -> None:
        for start in range(0, len(pairs), _AT_ONCE):
            chunk = pairs[start : start + _AT_ONCE]
            begun, left = time.perf_counter(), dict(enumerate(chunk))
            try:
                for number, reply in put([example for _, example in chunk]):
                    self._keep(left.pop(number)[0], Answer(reply=reply, seconds=_since(begun)))
            except (RequestError, DataError):
                # One of them cannot be asked as it was put; the others must not suffer.
                for key, example in left.values():
                    self._ask_alone(key, example, put)

    def _ask_alone(
        self,
        key: str,
        example: Example,
        put: Callable[[Sequence[Example]], Iterator[tuple[int, Reply]]],
    ) -> None:
        begun = time.perf_counter()
        try:
            [(_, reply)] = put([example])
            answer = Answer(reply=reply, seconds=_since(begun))
        except (RequestError, DataError) as error:
            answer = Answer(reply=_NOTHING, seconds=_since(begun), refused=str(error))
        self._keep(key, answer)

    def _keep(self, key: str, answer: Answer) -> None:
        self.book.keep(key, answer)
        self.meter.advance(1)
        self.mesh.progress.note("answering the questions of an evaluation")

    def _write(self, examples: Sequence[Example]) -> Iterator[tuple[int, Reply]]:
        yield from self.engine.replies(
            [example.conversation for example in examples],
            [example.options for example in examples],
        )

    def _redraw(self, examples: Sequence[Example]) -> Iterator[tuple[int, Reply]]:
        yield from redraw_examples(self.engine, examples)

    def _weigh(self, examples: Sequence[Example]) -> Iterator[tuple[int, Reply]]:
        questions = [(example.conversation, example.choices) for example in examples]
        for number, found in self.engine.weigh(questions):
            yield number, _choose(found)


_NOTHING = Reply(
    text="",
    pictures=(),
    features=(),
    finish_reason="length",
    num_prompt_tokens=0,
    num_new_tokens=0,
)


def _choose(found: tuple[Likelihood, ...]) -> Reply:
    reply = dataclasses.replace(_NOTHING, finish_reason="stop", choices=found)
    return dataclasses.replace(reply, text=found[likeliest(reply)].text)


def _make_record(task: Task, example: Example, answer: Answer | None) -> Record:
    if answer is None:
        raise DataError(
            f"The answer to {example.name} of {task.name} is missing: ranks do not see each "
            "other's files. Put the output into a folder that all of them share."
        )
    refused = answer.refused is not None
    return Record(
        example=example,
        reply=answer.reply,
        understood=None if refused else task.explain(example, answer.reply),
        score=0.0 if refused else task.score(example, answer.reply),
        seconds=answer.seconds,
        refused=answer.refused,
    )


def _size(example: Example) -> int:
    """About how long a question is."""
    parts = (part for turn in example.conversation.turns for part in turn.parts)
    return sum(
        len(part.text) if isinstance(part, Text) else part.picture.width * part.picture.height
        for part in parts
    )


def _since(begun: float) -> float:
    return time.perf_counter() - begun
