"""Caption rows: a picture and a text, learnt in both directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from mllm_npu.data.forms import Form
from mllm_npu.data.row import Row
from mllm_npu.data.tasks.task import (
    MOST_FORMS,
    CountTokens,
    Task,
    as_turns,
    choose,
    read_string,
)
from mllm_npu.errors import ConfigError, SampleFiltered, SkipSample
from mllm_npu.processing.conversation import Conversation, DrawnImage, Part, ReadImage, Text

_SLOT = "{caption}"
_SIMILARITIES = ("similarity", "score", "SCORE")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Variant:
    """A direction, and the numbers of prompt and caption; None leaves them to the rng."""

    draws: bool
    share: float
    prompt: int | None = None
    caption: int | None = None


class Caption(Task):
    """Reads a picture to its caption, or draws it from its caption.

    Args:
        draw_share: share of visits in which the picture is drawn, 0..1.
        read_prompts: what may stand between picture and caption; an empty string puts nothing
            there.
        draw_prompts: what may stand before the drawn picture, each with a ``{caption}`` slot.
        chat: whether prompt and answer are chat turns instead of one raw document.
        min_similarity: smallest similarity of picture and caption that the row's json may state, as
            ``similarity``, ``score`` or the best of ``all_similarities``; rows that state none
            pass.
        min_resolution: smallest edge in pixels of a picture.
        min_aspect_ratio: smallest ratio of a picture's shorter to its longer edge.

    Raises:
        ConfigError: if a share or a prompt is not usable.
    """

    name = "caption"

    def __init__(
        self,
        *,
        draw_share: float = 0.5,
        read_prompts: Sequence[str] = ("",),
        draw_prompts: Sequence[str] = (_SLOT,),
        chat: bool = False,
        min_similarity: float = 0.0,
        min_resolution: int = 0,
        min_aspect_ratio: float = 0.0,
    ) -> None:
        if not 0 <= draw_share <= 1:
            raise ConfigError(f"Caption: draw_share={draw_share} was asked for. Use 0 to 1.")
        if not read_prompts or not draw_prompts:
            raise ConfigError(
                "Caption: read_prompts or draw_prompts is empty. Give at least one each."
            )
        lacking = [prompt for prompt in draw_prompts if _SLOT not in prompt]
        if lacking:
            raise ConfigError(f"Caption: the draw prompt {lacking[0]!r} has no {_SLOT}. Add it.")
        self.draw_share = draw_share
        self.read_prompts = tuple(read_prompts)
        self.draw_prompts = tuple(draw_prompts)
        self.chat = chat
        self.min_similarity = min_similarity
        self.min_resolution = min_resolution
        self.min_aspect_ratio = min_aspect_ratio
        self._kept: dict[int, tuple[list[_Variant], list[float]]] = {}

    def to_conversation(self, row: Row, rng: Random, form: int | None = None) -> Conversation:
        """One turn of question and answer, or one document."""
        self._check(row)
        captions = _captions(row)
        variants, shares = self._variants(len(captions))
        chosen = variants[choose(shares, rng, form)]
        caption = _pick(captions, chosen.caption, rng)
        picture = row.picture()
        if chosen.draws:
            prompt = _pick(self.draw_prompts, chosen.prompt, rng).replace(_SLOT, caption)
            question: tuple[Part, ...] = (Text(text=prompt, learn=False),)
            answer: tuple[Part, ...] = (DrawnImage(picture=picture),)
        else:
            prompt = _pick(self.read_prompts, chosen.prompt, rng)
            hint = (Text(text=prompt, learn=False),) if prompt else ()
            question, answer = (ReadImage(picture=picture), *hint), (Text(text=caption),)
        return self._conversation(row, as_turns(question, answer, chat=self.chat))

    def forms(self, row: Row, count_tokens: CountTokens) -> Sequence[Form]:
        """Reading and drawing, each with every caption and prompt, or with the longest."""
        self._check(row)
        captions, size = _captions(row), row.picture_size()
        return [
            self._to_form(variant, captions, size, count_tokens)
            for variant in self._variants(len(captions))[0]
        ]

    def _to_form(
        self,
        variant: _Variant,
        captions: Sequence[str],
        size: tuple[int, int],
        count_tokens: CountTokens,
    ) -> Form:
        chosen = captions if variant.caption is None else [captions[variant.caption]]
        prompts = self.draw_prompts if variant.draws else self.read_prompts
        asked = prompts if variant.prompt is None else [prompts[variant.prompt]]
        turns = int(self.chat)
        if variant.draws:
            texts = [prompt.replace(_SLOT, caption) for prompt in asked for caption in chosen]
            tokens = max(count_tokens(text) for text in texts)
            return Form(
                share=variant.share,
                num_text_tokens=tokens,
                num_learnt_tokens=0,
                num_drawn=1,
                num_users=turns,
                num_assistants=turns,
            )
        caption = max(count_tokens(text) for text in chosen)
        prompt = max(count_tokens(text) for text in asked)
        return Form(
            share=variant.share,
            num_text_tokens=caption + prompt,
            num_learnt_tokens=caption,
            reads=(size,),
            num_users=turns,
            num_assistants=turns,
        )

    def _variants(self, num_captions: int) -> tuple[list[_Variant], list[float]]:
        """Forms of rows with so many captions, and their shares; kept, since most have one."""
        if num_captions not in self._kept:
            variants = self._list_variants(num_captions)
            self._kept[num_captions] = variants, [variant.share for variant in variants]
        return self._kept[num_captions]

    def _list_variants(self, num_captions: int) -> list[_Variant]:
        """Every combination, or, if they are many, the two directions with the rest left open."""
        directions = [
            (draws, share, len(self.draw_prompts if draws else self.read_prompts))
            for draws, share in ((False, 1 - self.draw_share), (True, self.draw_share))
            if share > 0
        ]
        if num_captions * sum(prompts for _, _, prompts in directions) > MOST_FORMS:
            return [_Variant(draws=draws, share=share) for draws, share, _ in directions]
        return [
            _Variant(
                draws=draws,
                share=share / prompts / num_captions,
                prompt=prompt,
                caption=caption,
            )
            for draws, share, prompts in directions
            for prompt in range(prompts)
            for caption in range(num_captions)
        ]

    def _check(self, row: Row) -> None:
        """Refuse a row below the limits; each limit is looked at only where it is set."""
        if self.min_similarity > 0 and "json" in row.members:
            stated = _similarity(row.json())
            if stated is not None and stated < self.min_similarity:
                raise SampleFiltered("similarity of picture and caption too low")
        if self.min_resolution > 0 or self.min_aspect_ratio > 0:
            short, long = sorted(row.picture_size())
            if short < self.min_resolution:
                raise SampleFiltered("picture too small")
            if short < self.min_aspect_ratio * long:
                raise SampleFiltered("picture too narrow")


def _pick(texts: Sequence[str], number: int | None, rng: Random) -> str:
    return rng.choice(texts) if number is None else texts[number]


def _similarity(values: Mapping[str, Any]) -> float | None:
    """Similarity of picture and caption, under the names that data sets have for it."""
    several = values.get("all_similarities")
    if isinstance(several, list) and several:
        return float(max(several))
    named = (values.get(name) for name in _SIMILARITIES)
    return next((float(value) for value in named if isinstance(value, int | float)), None)


def _captions(row: Row) -> list[str]:
    """Captions of a row; json may hold one or a list of them."""
    if "json" not in row.members:
        text = row.text()
        if not text:
            raise SkipSample("caption empty")
        return [text]
    values = row.json()
    several = values.get("caption")
    if isinstance(several, list) and several:
        return [read_string({"caption": one}, "caption") for one in several]
    return [read_string(values, "caption")]
