"""Answer conversations with text and drawn pictures, one by one or many together."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from PIL import Image

from mllm_npu.errors import TooLongError
from mllm_npu.inference.batcher import Batcher, Said
from mllm_npu.inference.drawing import redraw
from mllm_npu.inference.events import Event, Finished, Likelihood, Reply, collect_reply
from mllm_npu.inference.likelihood import LikelihoodScorer, Question
from mllm_npu.inference.live_row import LiveRow
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.inference.picture_queue import PictureQueue
from mllm_npu.inference.prompts import embed_prompts
from mllm_npu.inference.row_maker import RowMaker
from mllm_npu.processing.conversation import Conversation

if TYPE_CHECKING:
    from mllm_npu.models.mllm import SEED, GeneralizedMultimodalModel
    from mllm_npu.processing.processor import Processor

__all__ = ["Engine", "GenerationOptions"]

Request = tuple[int, Conversation, GenerationOptions]
NumberedEvent = tuple[int, Event]

_TOKENS_PER_STEP = 2048
_FIRST_TOKENS = 32
"""Tokens of a reply there is room for before slots grow."""


class Engine:
    """A model that is ready to answer.

    A reply depends on its conversation and its options alone, not on what is asked beside it.

    Args:
        model: put into evaluation mode and moved to ``device``.
        processor: the one the model was trained with.
        device: where the model runs.
        max_batch: requests that advance together, and pictures that are drawn together.
        window: requests that ``reply_many`` holds in memory at once.
        moves: whether to move the model; False for one that computes there already, wherever its
            parameters wait.
    """

    def __init__(
        self,
        *,
        model: SEED | GeneralizedMultimodalModel,
        processor: Processor,
        device: torch.device | str,
        max_batch: int = 64,
        window: int = 512,
        moves: bool = True,
    ) -> None:
        self.device = torch.device(device)
        self.model = (model.to(self.device) if moves else model).eval()
        self.processor = processor
        self.max_batch = max_batch
        self.window = window
        self._maker = RowMaker(model=self.model, processor=processor, device=self.device)
        self._tokens = self._maker.tokens

    @property
    def can_draw(self) -> bool:
        """Whether the model makes pictures."""
        return self._maker.artist is not None

    def stream(self, conversation: Conversation, options: GenerationOptions) -> Iterator[Event]:
        """Answer one conversation, event by event; the last one is ``Finished``.

        Raises:
            RequestError: before the first event, if the request cannot be answered as it was put.
        """
        rows = self._begin([(0, conversation, options)])
        return (event for _, event in self._run(rows))

    def reply(self, conversation: Conversation, options: GenerationOptions) -> Reply:
        """Answer one conversation.

        Raises:
            RequestError: if the request cannot be answered as it was put.
        """
        return collect_reply(self.stream(conversation, options))

    def reply_many(
        self,
        conversations: Sequence[Conversation],
        options: GenerationOptions | Sequence[GenerationOptions],
        progress: Callable[[int], None] | None = None,
    ) -> list[Reply]:
        """Answer many conversations; they advance together.

        Args:
            conversations: the questions.
            options: one for all, or one each.
            progress: called with the number of replies that have just become ready.

        Returns:
            The replies in the order of the questions.

        Raises:
            RequestError: if one of the requests cannot be answered as it was put.
        """
        replies: dict[int, Reply] = {}
        for number, reply in self.replies(conversations, options):
            replies[number] = reply
            if progress is not None:
                progress(1)
        return [replies[number] for number in range(len(conversations))]

    def replies(
        self,
        conversations: Sequence[Conversation],
        options: GenerationOptions | Sequence[GenerationOptions],
    ) -> Iterator[tuple[int, Reply]]:
        """Answer many conversations; each reply with the number of its question, once it is there.

        Raises:
            RequestError: if one of the requests cannot be answered as it was put.
        """
        each = [options] * len(conversations) if isinstance(options, GenerationOptions) else options
        requests = list(zip(range(len(conversations)), conversations, each, strict=True))
        events: dict[int, list[Event]] = defaultdict(list)
        for start in range(0, len(requests), self.window):
            rows = self._begin(requests[start : start + self.window])
            for number, event in self._run(rows):
                events[number].append(event)
                if isinstance(event, Finished):
                    yield number, collect_reply(events.pop(number))

    def weigh(self, questions: Sequence[Question]) -> Iterator[tuple[int, tuple[Likelihood, ...]]]:
        """Say how likely texts are as replies to questions; nothing is written.

        Args:
            questions: each with its texts, in words or in tokens. Those that begin alike are fast
                where they stand side by side.

        Returns:
            Number of a question and the likelihoods of its texts, once they are known.

        Raises:
            RequestError: if one of them cannot be asked as it was put.
        """
        scorer = LikelihoodScorer(
            model=self.model,
            processor=self.processor,
            device=self.device,
            max_tokens=self._maker.max_tokens,
            max_rows=self.max_batch,
        )
        for start in range(0, len(questions), self.window):
            for number, found in scorer.weigh(questions[start : start + self.window]):
                yield start + number, found

    def fits(self, conversation: Conversation, room: int) -> bool:
        """Whether the model takes a question and so many tokens after it."""
        try:
            layout = self.processor.lay_out(conversation, reply=True)
        except TooLongError:
            return False
        return len(layout.ids) + room <= self._maker.max_tokens

    def redraw(
        self, pictures: Sequence[Image.Image], options: GenerationOptions
    ) -> list[Image.Image]:
        """Send pictures through the vision encoder and the image decoder, past the language model.

        Args:
            pictures: RGB, of any size.
            options: image_steps, guidance and seed; every picture starts from the same noise.

        Raises:
            RequestError: if the model cannot draw.
        """
        return redraw(
            self._maker.require_artist(),
            pictures,
            options,
            device=self.device,
            max_batch=self.max_batch,
            exact=False,
        )

    def _begin(self, requests: Sequence[Request]) -> list[LiveRow]:
        made = [self._maker.make(*request) for request in requests]
        with torch.inference_mode():
            samples = [sample for _, sample in made]
            prompts = embed_prompts(self.model, samples, self.device, self.max_batch)
        for (row, _), prompt_LD in zip(made, prompts, strict=True):
            row.prompt_LD = prompt_LD
        return [row for row, _ in made]

    def _run(self, rows: Sequence[LiveRow]) -> Iterator[NumberedEvent]:
        """Answer requests; a slot that becomes free goes to the next one."""
        if not rows:
            return
        pictures = PictureQueue(self._maker.artist, max_batch=self.max_batch)
        waiting, batcher = deque(rows), self._make_batcher(rows, pictures)
        while waiting or batcher.rows or len(pictures):
            while waiting and batcher.num_free:
                batcher.add(waiting.popleft())
            said = batcher.step() if batcher.rows else []
            failed = next((row.error for row, _ in said if row.error is not None), None)
            if failed is not None:
                raise failed
            everyone_waits = all(row.order.is_blocked for row in batcher.rows)
            if len(pictures) >= self.max_batch or (len(pictures) and everyone_waits):
                said += _draw(pictures)
            yield from ((row.number, event) for row, events in said for event in events)

    def _make_batcher(self, rows: Sequence[LiveRow], pictures: PictureQueue) -> Batcher:
        """Slots for these requests: they grow, since most replies are shorter than they may be."""
        longest = max(row.num_prompt + row.room for row in rows)
        with torch.inference_mode():
            slots = self.model.language_model.new_slots(
                min(self.max_batch, len(rows)),
                longest,
                first_tokens=min(longest, max(row.num_tokens for row in rows) + _FIRST_TOKENS),
            )
        return Batcher(
            model=self.model,
            artist=self._maker.artist,
            tokens=self._tokens,
            slots=slots,
            pictures=pictures,
            tokens_per_step=_TOKENS_PER_STEP,
            prefill_chunk=_TOKENS_PER_STEP,
        )


def _draw(pictures: PictureQueue) -> Said:
    batch = pictures.take()
    pictures.draw(batch)
    return [
        (job.row, job.row.order.fill_gap(job.number, job.made))
        for job in batch
        if job.made is not None
    ]
