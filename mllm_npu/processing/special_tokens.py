"""Name the tokens of pictures, places and boxes, add them once, and resolve their ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from mllm_npu.errors import ConfigError

IMAGE_BEGIN, IMAGE_END = "<img>", "</img>"
PATCH_BEGIN, PATCH_END = "<patch>", "</patch>"
BOX_BEGIN, BOX_END = "<box_start>", "<box_end>"


def slot_token(number: int) -> str:
    """Spelling of the ``number``-th image slot, ``<img_00007>``."""
    return f"<img_{number:05d}>"


def location_token(number: int) -> str:
    """Spelling of the ``number``-th location on a picture's edge, ``<loc-7>``."""
    return f"<loc-{number}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialTokens:
    """Which extra tokens a multimodal vocabulary has.

    Args:
        num_slots: image slots; at least as many as a picture takes, read or drawn.
        num_locations: location tokens for boxes; 0 leaves out the box tags as well.
    """

    num_slots: int = 100
    num_locations: int = 224

    def __post_init__(self) -> None:
        if self.num_slots < 1 or self.num_locations < 0:
            raise ConfigError(
                f"num_slots={self.num_slots}, num_locations={self.num_locations} were asked for. "
                "Give at least one slot and no negative number of locations."
            )

    def all(self) -> list[str]:
        """Every spelling in the order in which ids are given: slots, tags, locations, box tags."""
        boxes = [BOX_BEGIN, BOX_END] if self.num_locations else []
        return [
            *(slot_token(number) for number in range(self.num_slots)),
            *(IMAGE_BEGIN, IMAGE_END, PATCH_BEGIN, PATCH_END),
            *(location_token(number) for number in range(self.num_locations)),
            *boxes,
        ]


def add_special_tokens(
    tokenizer: PreTrainedTokenizerFast, tokens: SpecialTokens | None = None
) -> int:
    """Append the extra tokens to a tokenizer, in place.

    Args:
        tokenizer: one that has none of them yet.
        tokens: which ones; None means the default set of 330.

    Returns:
        How many were added; the language model's table must grow by as many rows.

    Raises:
        ConfigError: One of them is there already, so ids of a trained model could shift.
    """
    spellings = (tokens or SpecialTokens()).all()
    vocabulary = tokenizer.get_vocab()
    present = [spelling for spelling in spellings if spelling in vocabulary]
    if present:
        raise ConfigError(
            f"{len(spellings)} special tokens were to be added, the tokenizer already has "
            f"{present[0]} and {len(present) - 1} more of them. Use the tokenizer as it is, or "
            "start from a plain one."
        )
    return tokenizer.add_tokens(
        [AddedToken(spelling, normalized=False, special=True) for spelling in spellings],
        special_tokens=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageIds:
    """Ids of the image tokens in one vocabulary.

    Args:
        begin: ``<img>``, opens a whole picture; None where nothing stands around a picture.
        end: ``</img>``.
        patch_begin: ``<patch>``, opens a tile of a picture.
        patch_end: ``</patch>``.
        slots: ``<img_00000>`` onwards; each takes one feature. Without tags the one token that
            stands for every feature.
    """

    begin: int | None
    end: int | None
    patch_begin: int | None
    patch_end: int | None
    slots: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast) -> Self:
        """Look the ids up.

        Raises:
            ConfigError: The tokenizer lacks one of the tags, or has no slot.
        """
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        needed = (IMAGE_BEGIN, IMAGE_END, PATCH_BEGIN, PATCH_END, slot_token(0))
        missing = [spelling for spelling in needed if spelling not in vocabulary]
        if missing:
            raise ConfigError(
                f"A tokenizer with image tokens was asked for, this one lacks {', '.join(missing)}."
                " Run add_special_tokens on it and save it."
            )
        num_slots = 0
        while slot_token(num_slots) in vocabulary:
            num_slots += 1
        return cls(
            begin=vocabulary[IMAGE_BEGIN],
            end=vocabulary[IMAGE_END],
            patch_begin=vocabulary[PATCH_BEGIN],
            patch_end=vocabulary[PATCH_END],
            slots=tuple(vocabulary[slot_token(number)] for number in range(num_slots)),
        )

    @classmethod
    def repeated(cls, tokenizer: PreTrainedTokenizerFast, spelling: str) -> Self:
        """One token, repeated for every feature, with nothing around it.

        Raises:
            ConfigError: The tokenizer has no such token.
        """
        number = tokenizer.get_vocab().get(spelling)
        if number is None:
            raise ConfigError(
                f"image_token={spelling} was asked for, the tokenizer has no such token. Give the "
                "one that stands for pictures in it, or image_token=null for <img> and its slots."
            )
        return cls(begin=None, end=None, patch_begin=None, patch_end=None, slots=(number,))

    @property
    def tags(self) -> frozenset[int]:
        """What stands around pictures and tiles."""
        tags = (self.begin, self.end, self.patch_begin, self.patch_end)
        return frozenset(number for number in tags if number is not None)

    @property
    def num_slots(self) -> int | None:
        """Features of a tile that can be told apart; None where any number will do."""
        return None if self.begin is None else len(self.slots)

    def block(self, num_slots: int, *, patch: bool) -> tuple[int, ...]:
        """Ids of a tile or of a whole picture.

        Args:
            num_slots: features.
            patch: whether it is a tile of a picture.
        """
        begin, end = (self.patch_begin, self.patch_end) if patch else (self.begin, self.end)
        if begin is None or end is None:
            return self.slots * num_slots
        return (begin, *self.slots[:num_slots], end)

    def everything(self) -> frozenset[int]:
        """All image ids, tags and slots."""
        return self.tags | frozenset(self.slots)


def reserved_ids(tokenizer: PreTrainedTokenizerFast) -> frozenset[int]:
    """Ids that a reader never sees; text from outside must not turn into any but `box_ids`.

    They are the control tokens (begin, end, pad, turn marks) and the image, location and box
    tokens. Added tokens that are ordinary text, such as runs of spaces in some vocabularies, are
    not among them.
    """
    ours = {PATCH_BEGIN, PATCH_END, IMAGE_BEGIN, IMAGE_END, BOX_BEGIN, BOX_END}
    reserved = {
        number
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.special or token.content in ours or token.content.startswith(("<img_", "<loc-"))
    }
    # Unknown characters become the unknown token on their own; that is no attempt at anything.
    return frozenset(reserved - {tokenizer.unk_token_id})


def box_ids(tokenizer: PreTrainedTokenizerFast) -> frozenset[int]:
    """Ids of the location and box tokens; a text may spell them, a reader sees boxes instead."""
    return frozenset(
        number
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.content in (BOX_BEGIN, BOX_END) or token.content.startswith("<loc-")
    )
