"""Turn a conversation into tokens, labels, tiles and slot places; the only place that does.

Shape letters: Q tokens per read tile, P tokens per drawn picture.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from mllm_npu.batch import Sample
from mllm_npu.errors import TooLongError
from mllm_npu.processing.augment import AffineAugment
from mllm_npu.processing.chat_template import ChatTemplate, End, Frame, Said
from mllm_npu.processing.conversation import (
    Conversation,
    DrawnImage,
    ReadImage,
    Text,
)
from mllm_npu.processing.conversation_check import check_turns, refuse
from mllm_npu.processing.grid_slots import place_grids
from mllm_npu.processing.grounding import Box, parse_boxes
from mllm_npu.processing.layout import TokenLayout, slot_places
from mllm_npu.processing.length_rule import LengthRule
from mllm_npu.processing.processor_check import check_sizes, check_tokens
from mllm_npu.processing.raster import Picture, to_pillow
from mllm_npu.processing.sample_pixels import cut_pictures, decode_or_skip
from mllm_npu.processing.special_tokens import ImageIds, box_ids, reserved_ids
from mllm_npu.processing.text_run import TextRun
from mllm_npu.processing.tile_buffer import TileBuffer
from mllm_npu.processing.tiling import Tiling

_CACHED_PIECES = 16384
_LONGEST_CACHED_PIECE = 512


class Processor:
    """Encodes conversations for training, evaluation and serving, and decodes answers.

    A read picture is ``{<patch> slots </patch>}`` for every tile but the last, then ``<img> slots
    </img>`` for the whole picture; every tile uses the same slot ids. With an ``image_token`` it is
    that token as often as the picture has features. A drawn picture is ``<img> slots </img>`` with
    a label on ``<img>`` only, and needs one tile, the whole picture.

    Args:
        tokenizer: one with image tokens and an end-of-text token.
        any_resolution: cuts read pictures into tiles.
        chat_template: frames of the roles.
        num_read_tokens: Q.
        num_drawn_tokens: P; 0 for a model that only reads, whose samples with drawn pictures are
            left out.
        max_tokens: longest sample; a longer one is left out, never cut.
        picture_size: edge of the drawn pictures an image decoder is trained on; None: no decoder.
        condition_pictures: whether that decoder takes the picture before a drawn one, to change it.
        augment: distorts pictures where ``encode`` is given an rng.
        image_token: the one token that stands for every feature of a read picture, such as
            ``<image>``, with no tags around; None for tags and slots.
        join_texts: tokenise what stands between two pictures as one text, as models from elsewhere
            were trained; planned lengths are then upper bounds. False tokenises every text and
            every frame by itself.

    Attributes:
        image_ids: ids of the image tokens.
        eos_id: id that ends an answer.
        pad_id: id that fills rows; the end-of-text id where the vocabulary has no padding.

    Raises:
        ConfigError: The tokenizer lacks tokens, or has fewer slots than a picture takes.
    """

    def __init__(
        self,
        *,
        tokenizer: PreTrainedTokenizerFast,
        any_resolution: Tiling,
        chat_template: ChatTemplate,
        num_read_tokens: int,
        num_drawn_tokens: int,
        max_tokens: int,
        picture_size: int | None = None,
        condition_pictures: bool = False,
        augment: AffineAugment | None = None,
        image_token: str | None = None,
        join_texts: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self.any_resolution = any_resolution
        self.chat_template = chat_template
        self.num_read_tokens = num_read_tokens
        self.num_drawn_tokens = num_drawn_tokens
        self.max_tokens = max_tokens
        self.picture_size = picture_size
        self.condition_pictures = condition_pictures
        self.augment = augment
        self.join_texts = join_texts
        self.image_ids = (
            ImageIds.of(tokenizer)
            if image_token is None
            else ImageIds.repeated(tokenizer, image_token)
        )
        check_sizes(max_tokens, picture_size, condition_pictures=condition_pictures)
        check_tokens(tokenizer, self.image_ids, any_resolution, num_read_tokens, num_drawn_tokens)
        # The library's own object: transformers' wrapper takes longer than a short text itself.
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        # Plain attributes: the tokenizer looks its ids up anew each time it is asked.
        self.eos_id = int(tokenizer.eos_token_id)
        self.pad_id = self.eos_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        bos_id = tokenizer.bos_token_id
        self._opening: tuple[int, ...] = () if bos_id is None else (bos_id,)
        self._reserved = reserved_ids(tokenizer) | self.image_ids.everything()
        self._box_ids = box_ids(tokenizer)
        self._pieces: dict[str, tuple[int, ...]] = {}
        self._read_block = self.image_ids.block(num_read_tokens, patch=False)
        self._patch_block = self.image_ids.block(num_read_tokens, patch=True)
        self._drawn_block = self.image_ids.block(num_drawn_tokens, patch=False)

    def __getstate__(self) -> dict[str, Any]:
        # Workers start with an empty cache instead of a copy of a full one.
        return {**self.__dict__, "_pieces": {}}

    def encode(
        self, conversation: Conversation, *, reply: bool = False, rng: random.Random | None = None
    ) -> Sample:
        """Tokens, labels and tiles of a conversation.

        Args:
            conversation: what is said, read and drawn.
            reply: leave the conversation open for the assistant. Pictures drawn earlier then keep
                their tokens and have no tiles, since nothing is learnt from them.
            rng: decides how pictures are distorted; None leaves them as they are.

        Returns:
            A sample, not padded.

        Raises:
            SkipSample: The conversation is empty or too long, its text spells a control token, or a
                picture cannot be decoded.
            RequestError: The same, where a reply was asked for.
        """
        return self.fill(self.lay_out(conversation, reply=reply), rng=rng)

    def lay_out(self, conversation: Conversation, *, reply: bool = False) -> TokenLayout:
        """The first half of ``encode``: tokens and labels; no pixel is touched."""
        check_turns(conversation, reply=reply)
        layout = TokenLayout(conversation=conversation)
        layout.add(self._opening, learn=False)
        run = TextRun()
        alone = not self.any_resolution.picks_by_company or _count_read(conversation) == 1
        for piece in self.chat_template.render(conversation, reply=reply):
            match piece:
                case Frame(text=text, learn=learn):
                    self._add_text(layout, run, text, self._tokenize(text), learn, is_frame=True)
                case Said(part=Text() as part, learn=learn):
                    ids = self._tokenize_said(part.text, reply=reply)
                    learn = learn if part.learn is None else part.learn
                    self._add_text(layout, run, part.text, ids, learn, is_frame=False)
                case Said(part=ReadImage() as part):
                    self._end_run(run, layout, reply=reply)
                    self._add_read(layout, part, alone=alone)
                case Said(part=DrawnImage()) if not self.num_drawn_tokens:
                    refuse(
                        "A picture is drawn, and the model only reads",
                        "leave it out, or take a model that draws.",
                        reply=reply,
                    )
                case Said(part=DrawnImage() as part):
                    self._end_run(run, layout, reply=reply)
                    if reply:
                        layout.add(self._drawn_block, learn=False)
                    else:
                        layout.add_drawn(part, self._drawn_block)
                case End(learn=learn):
                    self._end_run(run, layout, reply=reply)
                    layout.add((self.eos_id,), learn=learn)
        self._end_run(run, layout, reply=reply)
        if len(layout.ids) > self.max_tokens:
            refuse(
                f"The conversation is longer than max_tokens={self.max_tokens}",
                f"it has {len(layout.ids)} tokens. Shorten the text, or use fewer pictures.",
                reply=reply,
                kind=TooLongError,
            )
        return layout

    def fill(
        self,
        layout: TokenLayout,
        *,
        rng: random.Random | None = None,
        buffer: TileBuffer | None = None,
    ) -> Sample:
        """The second half of ``encode``: decode pictures and cut them into tiles.

        Args:
            layout: what ``lay_out`` gave.
            rng: decides how pictures are distorted; None leaves them as they are.
            buffer: gives the memory of the tiles, so that samples of a pack lie end to end.
        """
        pixels = cut_pictures(
            [self._distort(part.picture, rng) for part in layout.pictures],
            [isinstance(part, DrawnImage) for part in layout.pictures],
            any_resolution=self.any_resolution,
            picture_size=self.picture_size,
            condition_pictures=self.condition_pictures,
            buffer=buffer,
        )
        grid_slots, grid_sources, grid_weights = place_grids(
            layout, self.any_resolution, self.num_read_tokens
        )
        return Sample(
            # By way of NumPy, which takes lists four times faster.
            input_ids=torch.from_numpy(np.array(layout.ids, dtype=np.int64)),
            labels=torch.from_numpy(np.array(layout.labels, dtype=np.int64)),
            tiles=pixels.tiles,
            tile_positions=pixels.tile_positions,
            read_tiles=pixels.read_tiles,
            read_slots=slot_places(layout.read_starts, self.num_read_tokens),
            grid_slots=grid_slots,
            grid_sources=grid_sources,
            grid_weights=grid_weights,
            draw_tiles=pixels.draw_tiles,
            draw_slots=slot_places(layout.draw_starts, self.num_drawn_tokens),
            pictures=pixels.pictures,
            conditions=pixels.conditions,
            condition_weights=pixels.condition_weights,
            key=layout.conversation.key,
            source=layout.conversation.source,
            task=layout.conversation.task,
        )

    @property
    def length_rule(self) -> LengthRule:
        """Tokens that a conversation has beside its texts."""
        return LengthRule.of(
            self.chat_template,
            count=lambda text: len(self._tokenize(text)),
            opening=len(self._opening),
            read_tile=len(self._read_block),
            drawn_picture=len(self._drawn_block),
        )

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Ids of a text that follows others, tokenised on its own, as every text is.

        Raises:
            RequestError: It is empty, or spells a control token.
        """
        return self._tokenize_said(text, reply=True)

    def count_tokens(self, text: str) -> int:
        """Tokens of a text that stands alone."""
        return len(self._backend.encode(text, add_special_tokens=False).ids)

    @cached_property
    def tokenizer_fingerprint(self) -> str:
        """Tells one tokenizer from another; a large one takes a tenth of a second to hash."""
        return hashlib.sha256(self._backend.to_str().encode()).hexdigest()[:16]

    def read_boxes(self, ids: Sequence[int] | Tensor) -> tuple[Box, ...]:
        """Boxes that an answer names, in reading order."""
        num_locations = len(self._box_ids) - 2
        if num_locations < 1:
            return ()
        return tuple(parse_boxes(self.decode_text(ids, boxes=True), num_locations=num_locations))

    def decode_text(self, ids: Sequence[int] | Tensor, *, boxes: bool = False) -> str:
        """Text of an answer, without image tokens and control tokens.

        Args:
            ids: of the answer.
            boxes: keep the tokens of boxes.
        """
        numbers: Sequence[int] = ids.tolist() if isinstance(ids, Tensor) else ids
        hidden = self._reserved - self._box_ids if boxes else self._reserved
        kept = [number for number in numbers if number not in hidden]
        return self.tokenizer.decode(kept, clean_up_tokenization_spaces=False)

    def _add_read(self, layout: TokenLayout, part: ReadImage, *, alone: bool) -> None:
        size, tiling = (part.picture.width, part.picture.height), self.any_resolution
        num_tiles = tiling.num_tiles(*size, alone=alone)
        if tiling.joins:
            count = tiling.num_tokens(*size, per_tile=self.num_read_tokens, alone=alone)
            layout.add_joined(part, self.image_ids.slots * count, num_tiles)
        else:
            patches = [self._patch_block] * (num_tiles - 1)
            before = int(self.image_ids.begin is not None)
            layout.add_read(part, [*patches, self._read_block], num_before=before)

    def _add_text(
        self,
        layout: TokenLayout,
        run: TextRun,
        text: str,
        ids: Sequence[int],
        learn: bool,
        *,
        is_frame: bool,
    ) -> None:
        if self.join_texts:
            run.add(text, learn=learn, is_frame=is_frame)
        else:
            layout.add(ids, learn=learn)

    def _end_run(self, run: TextRun, layout: TokenLayout, *, reply: bool) -> None:
        """Append the texts so far as one, and forget them."""
        if not run.texts:
            return
        ids, labels = run.encode(self._backend)
        spelt = run.spells(self._backend, ids, self._reserved - self._box_ids)
        if spelt is not None:
            self._refuse_spelling(spelt, reply=reply)
        layout.add_labelled(ids, labels)
        run.clear()

    def _tokenize(self, text: str) -> tuple[int, ...]:
        ids = self._pieces.get(text)
        if ids is None:
            ids = tuple(self._backend.encode(text, add_special_tokens=False).ids) if text else ()
            if len(text) <= _LONGEST_CACHED_PIECE:
                if len(self._pieces) >= _CACHED_PIECES:
                    self._pieces.clear()
                self._pieces[text] = ids
        return ids

    def _tokenize_said(self, text: str, *, reply: bool) -> tuple[int, ...]:
        if not text:
            refuse("A text is empty", "leave the part out, or give it characters.", reply=reply)
        if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
            refuse("A text is not valid Unicode", "give it as UTF-8.", reply=reply)
        ids = self._tokenize(text)
        spells = self._reserved.intersection(ids) - self._box_ids
        if spells:
            spelt = next(number for number in ids if number in spells)
            self._refuse_spelling(spelt, reply=reply)
        return ids

    def _refuse_spelling(self, spelt: int, *, reply: bool) -> None:
        token = self.tokenizer.convert_ids_to_tokens(spelt)
        refuse(
            "A text spells a control token",
            f"it contains {token}. Remove it from the text.",
            reply=reply,
        )

    def _distort(self, picture: Picture, rng: random.Random | None) -> Picture:
        if self.augment is None or rng is None:
            return picture
        return self.augment(to_pillow(decode_or_skip(picture)), rng)


def _count_read(conversation: Conversation) -> int:
    parts = (part for turn in conversation.turns for part in turn.parts)
    return sum(isinstance(part, ReadImage) for part in parts)
