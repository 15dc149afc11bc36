"""Make the state of a request from a conversation and options, or refuse it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from PIL import Image

from mllm_npu.batch import Sample, tile_blocks
from mllm_npu.errors import RequestError
from mllm_npu.inference.drawing import fresh_seed
from mllm_npu.inference.image_tokens import ImageTokens
from mllm_npu.inference.live_row import LiveRow
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.inference.prompts import check_question
from mllm_npu.processing.conversation import Conversation, Text
from mllm_npu.processing.raster import to_pillow

if TYPE_CHECKING:
    from mllm_npu.models.mllm import SEED, GeneralizedMultimodalModel
    from mllm_npu.processing.processor import Processor


class RowMaker:
    """What all requests to a model share; nothing here runs on its device.

    Args:
        model: in evaluation mode.
        processor: the one the model was trained with.
        device: where the model runs.

    Attributes:
        artist: the model, where it draws.
        tokens: its image tokens.
        max_tokens: longest question and reply together.
    """

    def __init__(
        self, *, model: GeneralizedMultimodalModel, processor: Processor, device: torch.device
    ) -> None:
        draws = getattr(model, "image_decoder", None) is not None
        self.artist = cast("SEED", model) if draws else None
        self.tokens = ImageTokens(
            processor=processor, vocab_size=model.language_model.vocab_size, device=device
        )
        most = model.language_model.max_tokens
        self.max_tokens = min(processor.max_tokens, most or processor.max_tokens)
        self._processor = processor
        self._sees_tiles = model.bidirectional_images
        self._stop_ids = _find_stop_ids(processor)

    def make(
        self, number: int, conversation: Conversation, options: GenerationOptions
    ) -> tuple[LiveRow, Sample]:
        """The state of a request whose prompt is not embedded yet, and its prompt.

        Raises:
            RequestError: it cannot be answered as it was put.
        """
        if options.images == "force":
            self.require_artist()
        check_question(conversation)
        sample = self._processor.encode(conversation, reply=True)
        row = LiveRow(
            number=number,
            options=options,
            num_prompt=sample.num_tokens,
            prompt_ids=_texts_of(sample) if options.repetition_penalty != 1 else (),
            prompt_blocks=tile_blocks(sample.read_slots) if self._sees_tiles else (),
            room=self.max_tokens - sample.num_tokens,
            seed=fresh_seed(options.seed),
            decode=self._processor.decode_text,
            read_boxes=self._processor.read_boxes,
            image_block=self.tokens.block,
            stop_ids=self._stop_ids,
            shown=_last_picture(conversation),
        )
        row.check_room()
        if options.images == "force":
            row.begin_picture()
        return row, sample

    def require_artist(self) -> SEED:
        """The model as one that draws.

        Raises:
            RequestError: it does not.
        """
        if self.artist is None:
            raise RequestError(
                "A picture was asked for, this model has no image decoder. "
                "Use images=auto or forbid, or load a model that draws."
            )
        return self.artist


def _texts_of(sample: Sample) -> Sequence[int]:
    """Ids of a prompt without the slots of its pictures."""
    said = torch.ones(sample.num_tokens, dtype=torch.bool)
    said[sample.read_slots.flatten() if sample.grid_slots is None else sample.grid_slots] = False
    ids: list[int] = sample.input_ids[said].tolist()
    return ids


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
