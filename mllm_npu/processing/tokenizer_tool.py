"""Extend a tokenizer folder by the tokens of pictures, places and boxes, and prove it unharmed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from mllm_npu.errors import ConfigError
from mllm_npu.processing.sentencepiece_model import PROBES
from mllm_npu.processing.special_tokens import (
    BOX_BEGIN,
    BOX_END,
    IMAGE_BEGIN,
    IMAGE_END,
    PATCH_BEGIN,
    PATCH_END,
    SpecialTokens,
    add_special_tokens,
    location_token,
    slot_token,
)
from mllm_npu.processing.tokenizer import load_tokenizer

PADDING = "<unk>"
"""Pads where a vocabulary has neither a pad nor an unknown token, as in Llama 3."""

_LANDMARKS = (
    PADDING,
    slot_token(0),
    IMAGE_BEGIN,
    IMAGE_END,
    PATCH_BEGIN,
    PATCH_END,
    location_token(0),
    BOX_BEGIN,
    BOX_END,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerReport:
    """What became of a tokenizer.

    Args:
        old_size: rows that a language model needs for the tokenizer as it was.
        new_size: rows that it needs now; its ``vocab_size``.
        pad_token: spelling of the token that pads.
        ids: of the tags, of the first slot, of the first location and, where it is new, of the
            token that pads.
    """

    old_size: int
    new_size: int
    pad_token: str
    ids: dict[str, int]


def extend_tokenizer(
    source: Path, target: Path, *, num_slots: int = 100, num_locations: int = 224
) -> TokenizerReport:
    """Write a folder with the tokenizer of another one and the extra tokens behind its own.

    The order is that of the released models: the padding token where one is needed, slots, tags,
    locations, box tags. The folder is saved, read again and compared before it gets its name.

    Args:
        source: folder of a tokenizer; a SentencePiece model is turned into tokenizer.json.
        target: folder to write; not there yet, or empty.
        num_slots: image slots.
        num_locations: location tokens; 0 leaves out the box tags as well.

    Raises:
        ConfigError: no usable tokenizer, one that has the tokens already, a target with files in
            it, or a tokenizer that is not the same after it was saved and read.
    """
    tokens = SpecialTokens(num_slots=num_slots, num_locations=num_locations)
    _require_free(target)
    tokenizer = load_tokenizer(path=str(source))
    vocabulary = tokenizer.get_vocab()
    texts = [_encode(tokenizer, text) for text in PROBES]
    words = [_without_blanks(tokenizer.decode(ids)) for ids in texts]
    _require_padding(tokenizer)
    add_special_tokens(tokenizer, tokens)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        tokenizer.save_pretrained(str(partial))
        saved = load_tokenizer(path=str(partial))
        _require_old(saved, vocabulary, texts)
        _require_new(saved, tokens.all(), words)
        partial.replace(target)
    except OSError as error:
        raise ConfigError(
            f"The tokenizer cannot be written to {target}: {error}. Choose a folder that can be "
            "written, on a disk with room."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return _report(saved, vocabulary)


def _require_free(target: Path) -> None:
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ConfigError(
            f"A tokenizer was to be written to {target}, where files are already. Give a folder "
            "that is not there, or an empty one."
        )


def _require_padding(tokenizer: PreTrainedTokenizerFast) -> None:
    """Let the unknown token pad where nothing does; add one where there is none."""
    if tokenizer.pad_token is None:
        tokenizer.add_special_tokens({"pad_token": tokenizer.unk_token or PADDING})


def _require_old(
    saved: PreTrainedTokenizerFast, vocabulary: Mapping[str, int], texts: Sequence[list[int]]
) -> None:
    """Refuse a tokenizer that has other ids for what it knew before."""
    found = saved.get_vocab()
    moved = [spelling for spelling, number in vocabulary.items() if found.get(spelling) != number]
    if moved:
        raise ConfigError(
            f"{len(moved)} old tokens, {moved[0]!r} among them, have other ids after the tokenizer "
            "was saved and read. Save it as tokenizer.json with the program it comes from."
        )
    changed = [text for text, ids in zip(PROBES, texts, strict=True) if _encode(saved, text) != ids]
    if changed:
        raise ConfigError(
            f"The text {changed[0]!r} has other ids after the tokenizer was saved and read. "
            "Save it as tokenizer.json with the program it comes from."
        )


def _require_new(
    saved: PreTrainedTokenizerFast, spellings: Sequence[str], words: Sequence[str]
) -> None:
    """Refuse a tokenizer that splits an added token, or loses text beside one."""
    numbers = saved.convert_tokens_to_ids(list(spellings))
    broken = [
        spelling
        for spelling, number in zip(spellings, numbers, strict=True)
        if _encode(saved, spelling) != [number]
    ]
    places = [number * len(spellings) // len(PROBES) for number in range(len(PROBES))]
    chosen = [spellings[place] for place in places]
    ids = _encode(saved, "".join(map("".join, zip(PROBES, chosen, strict=True))))
    added = set(numbers)
    found = [saved.convert_ids_to_tokens(number) for number in ids if number in added]
    expected = "".join(map("".join, zip(words, chosen, strict=True)))
    if broken or found != chosen or _without_blanks(saved.decode(ids)) != expected:
        raise ConfigError(
            f"Text with added tokens does not come back ({len(broken)} of {len(spellings)} tokens "
            f"are split{f', {broken[0]} among them' if broken else ''}). The tokenizer changes "
            "text before it looks for added tokens; take one that does not."
        )


def _report(saved: PreTrainedTokenizerFast, vocabulary: Mapping[str, int]) -> TokenizerReport:
    found = saved.get_vocab()
    return TokenizerReport(
        old_size=max(vocabulary.values()) + 1,
        new_size=max(found.values()) + 1,
        pad_token=str(saved.pad_token),
        ids={
            spelling: found[spelling]
            for spelling in _LANDMARKS
            if spelling in found and spelling not in vocabulary
        },
    )


def _encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def _without_blanks(text: str) -> str:
    """Text as far as it must survive; some tokenizers put a space beside an added token."""
    return "".join(text.split())
