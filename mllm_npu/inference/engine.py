"""Answer conversations with text and drawn pictures, one by one or many together.

Shape letters: B requests, L tokens fed at once, D language width, G pictures, K vision tokens per
tile, P tokens per drawn picture, V vision width, S pixels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, cast

import torch
from PIL import Image
from torch import Tensor

from mllm_npu.batch import Sample, tile_blocks
from mllm_npu.device.transfer import pick_rows
from mllm_npu.errors import RequestError
from mllm_npu.inference.drawing import draw_pictures, fresh_seed, redraw
from mllm_npu.inference.events import Event, Finished, ImageMade, Reply, collect_reply
from mllm_npu.inference.group import Group, begin_group, go_on
from mllm_npu.inference.image_tokens import ImageTokens
from mllm_npu.inference.live_row import LiveRow
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.inference.prompts import check_question, embed_prompts
from mllm_npu.inference.sampling import choose_tokens
from mllm_npu.processing.conversation import Conversation, Text
from mllm_npu.processing.raster import to_pillow

if TYPE_CHECKING:
    from mllm_npu.models.mllm import SEED, GeneralizedMultimodalModel
    from mllm_npu.processing.processor import Processor

__all__ = ["Engine", "GenerationOptions"]

Request = tuple[int, Conversation, GenerationOptions]
NumberedEvent = tuple[int, Event]


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
        draws = getattr(model, "image_decoder", None) is not None
        self._artist = cast("SEED", self.model) if draws else None
        self._stop_ids = _find_stop_ids(processor)
        self._tokens = ImageTokens(
            processor=processor, vocab_size=model.language_model.vocab_size, device=self.device
        )

    @property
    def can_draw(self) -> bool:
        """Whether the model makes pictures."""
        return self._artist is not None

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
        """Answer many conversations; those of equal length advance together.

        Args:
            conversations: the questions.
            options: one for all, or one each.
            progress: called with the number of replies that have just become ready.

        Returns:
            The replies in the order of the questions.

        Raises:
            RequestError: if one of the requests cannot be answered as it was put.
        """
        each = [options] * len(conversations) if isinstance(options, GenerationOptions) else options
        requests = list(zip(range(len(conversations)), conversations, each, strict=True))
        events: dict[int, list[Event]] = defaultdict(list)
        replies: dict[int, Reply] = {}
        for start in range(0, len(requests), self.window):
            rows = self._begin(requests[start : start + self.window])
            for number, event in self._run(rows):
                events[number].append(event)
                if isinstance(event, Finished):
                    replies[number] = collect_reply(events.pop(number))
                    if progress is not None:
                        progress(1)
        return [replies[number] for number in range(len(requests))]

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
            self._require_artist(),
            pictures,
            options,
            device=self.device,
            max_batch=self.max_batch,
            exact=False,
        )

    def _begin(self, requests: Sequence[Request]) -> list[LiveRow]:
        samples: list[Sample] = []
        for _, conversation, options in requests:
            if options.images == "force":
                self._require_artist()
            check_question(conversation)
            samples.append(self.processor.encode(conversation, reply=True))
        with torch.inference_mode():
            prompts = embed_prompts(self.model, samples, self.device, self.max_batch)
        sees_tiles = self.model.bidirectional_images
        rows = [
            LiveRow(
                number=number,
                options=options,
                prompt_LD=prompt_LD,
                prompt_blocks=tile_blocks(sample.read_slots) if sees_tiles else (),
                room=self.processor.max_tokens - len(prompt_LD),
                seed=fresh_seed(options.seed),
                decode=self.processor.decode_text,
                read_boxes=self.processor.read_boxes,
                image_block=self._tokens.block,
                stop_ids=self._stop_ids,
                shown=_last_picture(conversation),
            )
            for (number, conversation, options), sample, prompt_LD in zip(
                requests, samples, prompts, strict=True
            )
        ]
        for row in rows:
            row.check_room()
            if row.options.images == "force":
                row.begin_picture()
        return rows

    def _run(self, rows: Sequence[LiveRow]) -> Iterator[NumberedEvent]:
        alike: dict[tuple[int, bool], list[LiveRow]] = defaultdict(list)
        for row in rows:
            alike[len(row.prompt_LD), row.draws].append(row)
        for members in alike.values():
            for start in range(0, len(members), self.max_batch):
                yield from self._run_group(members[start : start + self.max_batch])

    def _run_group(self, rows: Sequence[LiveRow]) -> Iterator[NumberedEvent]:
        with torch.inference_mode():
            groups = [begin_group(rows, self.model.language_model)]
        while groups:
            group = groups.pop()
            with torch.inference_mode():
                events = self._advance(group)
                groups.extend(go_on(group, self.model.language_model))
            yield from events

    def _advance(self, group: Group) -> list[NumberedEvent]:
        language_model = self.model.language_model
        hidden_BLD = language_model.extend(
            group.pending_BLD, group.cache, blocks=group.pending_blocks
        )
        events = self._finish_pictures(group, hidden_BLD) if group.draws else []
        live = [(place, row) for place, row in group.live() if not row.finished]
        if not live:
            return events
        scores_BC = self._tokens.mask_scores(
            language_model.logits(pick_rows(hidden_BLD[:, -1], [place for place, _ in live])),
            may_draw=[self.can_draw and row.may_draw for _, row in live],
        )
        chosen = choose_tokens(
            scores_BC,
            options=[row.options for _, row in live],
            generators=[row.generator for _, row in live],
        )
        for (_, row), token_id in zip(live, chosen, strict=True):
            events.extend((row.number, event) for event in row.take(token_id))
        return events

    def _finish_pictures(self, group: Group, hidden_BLD: Tensor) -> list[NumberedEvent]:
        places, rows = zip(*group.live(), strict=True)
        artist = self._require_artist()
        features_GPV = self._tokens.predict_features(artist, pick_rows(hidden_BLD, places))
        pictures = draw_pictures(
            artist,
            features_GPV,
            options=[row.options for row in rows],
            generators=[row.picture_generator() for row in rows],
            conditions=[row.shown for row in rows],
        )
        events: list[NumberedEvent] = []
        for row, picture, features_PV in zip(
            rows, pictures, features_GPV.float().cpu(), strict=True
        ):
            made = ImageMade(picture=picture, features=features_PV)
            row.end_picture(picture)
            events.extend((row.number, event) for event in (made, *row.finish_if_full()))
        return events

    def _require_artist(self) -> SEED:
        if self._artist is None:
            raise RequestError(
                "A picture was asked for, this model has no image decoder. "
                "Use images=auto or forbid, or load a model that draws."
            )
        return self._artist


def _find_stop_ids(processor: Processor) -> frozenset[int]:
    """The end-of-text id, and where no such token closes a turn, the special tokens that do."""
    template, tokenizer = processor.chat_template, processor.tokenizer
    if template.close_with_eos:
        return frozenset({processor.eos_id})
    _, _, (_, assistant_suffix), _ = template.frames
    closing = tokenizer.encode(assistant_suffix, add_special_tokens=False)
    special = set(tokenizer.all_special_ids)
    return frozenset({processor.eos_id, *(number for number in closing if number in special)})


def _last_picture(conversation: Conversation) -> Image.Image | None:
    parts = (part for turn in reversed(conversation.turns) for part in reversed(turn.parts))
    return next((to_pillow(part.picture) for part in parts if not isinstance(part, Text)), None)
