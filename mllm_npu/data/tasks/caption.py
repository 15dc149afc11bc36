"""Caption rows: a picture and a text, learnt in both directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from mllm_npu.data.row import Row
from mllm_npu.data.tasks.task import (
    SPLIT_MARGIN,
    CountTokens,
    Measure,
    Task,
    as_turns,
    longest,
    read_string,
)
from mllm_npu.errors import ConfigError, SkipSample
from mllm_npu.processing.conversation import Conversation, DrawnImage, Part, ReadImage, Text

_SLOT = "{caption}"
_SIMILARITIES = ("similarity", "score", "SCORE")


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

    def to_conversation(self, row: Row, rng: Random) -> Conversation:
        """One turn of question and answer, or one document."""
        self._check(row)
        caption, picture = rng.choice(_captions(row)), row.picture()
        if rng.random() < self.draw_share:
            prompt = rng.choice(self.draw_prompts).replace(_SLOT, caption)
            question: tuple[Part, ...] = (Text(text=prompt, learn=False),)
            answer: tuple[Part, ...] = (DrawnImage(picture=picture),)
        else:
            prompt = rng.choice(self.read_prompts)
            hint = (Text(text=prompt, learn=False),) if prompt else ()
            question, answer = (ReadImage(picture=picture), *hint), (Text(text=caption),)
        return self._conversation(row, as_turns(question, answer, chat=self.chat))

    def measure(self, row: Row, count_tokens: CountTokens) -> Sequence[Measure]:
        """Reading with the longest prompt, drawing with the longest prompt."""
        self._check(row)
        caption = longest(_captions(row), count_tokens)
        turns, forms = 2 if self.chat else 0, []
        if self.draw_share < 1:
            tokens = caption + longest(self.read_prompts, count_tokens)
            forms.append(
                Measure(num_text_tokens=tokens, num_turns=turns, reads=(row.picture_size(),))
            )
        if self.draw_share > 0:
            frames = [prompt.replace(_SLOT, "") for prompt in self.draw_prompts]
            tokens = caption + longest(frames, count_tokens) + SPLIT_MARGIN
            forms.append(Measure(num_text_tokens=tokens, num_turns=turns, num_drawn=1))
        return forms

    def _check(self, row: Row) -> None:
        """Refuse a row below the limits; each limit is looked at only where it is set."""
        if self.min_similarity > 0 and "json" in row.members:
            stated = _similarity(row.json())
            if stated is not None and stated < self.min_similarity:
                raise SkipSample("similarity of picture and caption too low")
        if self.min_resolution > 0 or self.min_aspect_ratio > 0:
            short, long = sorted(row.picture_size())
            if short < self.min_resolution:
                raise SkipSample("picture too small")
            if short < self.min_aspect_ratio * long:
                raise SkipSample("picture too narrow")


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
