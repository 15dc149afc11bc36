"""Ask an engine what an answer book does not know yet: this rank's share, and past what it refuses.

Which rank asks what depends on the questions alone, not on what is known already, so that no two
ranks disagree about it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence

from mllm_npu.distributed.mesh import Mesh
from mllm_npu.errors import DataError, RequestError
from mllm_npu.evaluate.answer_book import Answer, AnswerBook, question_key
from mllm_npu.evaluate.choices import likeliest
from mllm_npu.evaluate.prompt import drop_shot
from mllm_npu.evaluate.redrawing import redraw_examples
from mllm_npu.evaluate.task import Example
from mllm_npu.inference.engine import Engine
from mllm_npu.inference.events import Likelihood, Reply
from mllm_npu.processing.conversation import Text

Named = tuple[str, Example]
"""A question and its key."""

Put = Callable[[Sequence[Example]], Iterator[tuple[int, Reply]]]
"""Asks; gives each reply with the number of its question."""

_AT_ONCE = 512
"""Questions that are handed to an engine together."""


class Asker:
    """Puts questions to an engine and their answers into a book.

    Args:
        engine: answers.
        book: is told of every answer.
        mesh: the ranks; each asks its share.
        advance: is told how many more examples are done.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        book: AnswerBook,
        mesh: Mesh,
        advance: Callable[[int], None],
    ) -> None:
        self._engine, self._book, self._mesh, self._advance = engine, book, mesh, advance

    def shorten(self, example: Example) -> Example:
        """The example with as many of its solved ones as the model has room for."""
        room = example.options.max_new_tokens
        if example.choices:
            # No text has more tokens than bytes.
            room = max(len(text.encode()) for text in example.choices)
        try:
            while example.num_shots and not self._engine.fits(example.conversation, room):
                place = example.first_shot + example.num_shots - 1
                example = dataclasses.replace(
                    example,
                    conversation=drop_shot(example.conversation, place),
                    num_shots=example.num_shots - 1,
                )
        except (RequestError, DataError):
            # It cannot be asked, however short it is; that is told when it is asked.
            return example
        return example

    def ask(self, examples: Sequence[Example]) -> None:
        """Ask what this rank has to and the book does not know; each question once.

        Raises:
            DataError: an answer cannot be kept.
        """
        keyed = {question_key(example): example for example in examples}
        own = list(keyed.items())[self._mesh.rank :: self._mesh.world_size]
        unknown = [pair for pair in own if self._book.find(pair[0]) is None]
        left = sum(self._book.find(key) is None for key in keyed)
        self._advance(len(examples) - left)
        for key, answer in self._answers(unknown):
            self._book.keep(key, answer)
            self._mesh.progress.note("answering the questions of an evaluation")
            # The others are about as far.
            step = min(self._mesh.world_size, left)
            self._advance(step)
            left -= step
        self._advance(left)

    def _answers(self, pairs: Sequence[Named]) -> Iterator[tuple[str, Answer]]:
        weighed = [pair for pair in pairs if pair[1].choices]
        redrawn = [pair for pair in pairs if pair[1].redraws]
        written = [pair for pair in pairs if not pair[1].choices and not pair[1].redraws]
        # The longest first: those that run together are of a length, and the end is near when it
        # seems so.
        written.sort(key=lambda pair: -_size(pair[1]))
        ways: tuple[tuple[Sequence[Named], Put], ...] = (
            (weighed, self._weigh),
            (redrawn, self._redraw),
            (written, self._write),
        )
        for own, put in ways:
            for start in range(0, len(own), _AT_ONCE):
                yield from _put_together(own[start : start + _AT_ONCE], put)

    def _write(self, examples: Sequence[Example]) -> Iterator[tuple[int, Reply]]:
        yield from self._engine.replies(
            [example.conversation for example in examples],
            [example.options for example in examples],
        )

    def _redraw(self, examples: Sequence[Example]) -> Iterator[tuple[int, Reply]]:
        yield from redraw_examples(self._engine, examples)

    def _weigh(self, examples: Sequence[Example]) -> Iterator[tuple[int, Reply]]:
        questions = [(example.conversation, example.choices) for example in examples]
        for number, found in self._engine.weigh(questions):
            yield number, _choose(found)


def _put_together(pairs: Sequence[Named], put: Put) -> Iterator[tuple[str, Answer]]:
    """Answers as they come; where one is refused, each half of the rest by itself."""
    begun, left = time.perf_counter(), dict(enumerate(pairs))
    try:
        for number, reply in put([example for _, example in pairs]):
            yield left.pop(number)[0], Answer(reply=reply, seconds=_since(begun))
    except (RequestError, DataError) as error:
        refused = str(error)
    else:
        return
    rest = list(left.values())
    if len(pairs) == 1:
        yield rest[0][0], Answer(reply=_NOTHING, seconds=_since(begun), refused=refused)
        return
    middle = (len(rest) + 1) // 2
    for half in (rest[:middle], rest[middle:]):
        if half:
            yield from _put_together(half, put)


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


def _size(example: Example) -> int:
    """About how long a question is."""
    parts = (part for turn in example.conversation.turns for part in turn.parts)
    return sum(
        len(part.text) if isinstance(part, Text) else part.picture.width * part.picture.height
        for part in parts
    )


def _since(begun: float) -> float:
    return time.perf_counter() - begun
