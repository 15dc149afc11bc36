"""Token piece: the tokens of a sample as boxes that people can read."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedTokenizerFast

from mllm_npu.batch import IGNORED_LABEL, Sample, whole_tiles
from mllm_npu.processing.special_tokens import ImageIds, box_ids, reserved_ids

Kind = Literal["text", "control", "location", "tag", "read", "drawn"]
"""``tag`` opens or closes a tile, ``read`` takes its features, ``drawn`` predicts them."""

_SIGNS = {"\n": "⏎", "\t": "⇥", "\r": "␍", " ": "␣"}
_MOST_TOKENS_OF_A_CHARACTER = 8
_BROKEN_CHARACTER = "\ufffd"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPiece:
    """One token, the few tokens that spell one character, or all slots of one tile.

    Args:
        begin: place of its first token in the sample.
        ids: its tokens.
        text: what it spells.
        kind: what it is.
        carries_loss: whether the model learns to predict it. The features of drawn slots are
            regressed instead, so those carry none here.
        tile: number of the tile its slots stand for, the whole picture's where tiles are joined;
            None for all but slots.
    """

    begin: int
    ids: tuple[int, ...]
    text: str
    kind: Kind
    carries_loss: bool
    tile: int | None = None

    @property
    def end(self) -> int:
        """Place behind its last token."""
        return self.begin + len(self.ids)

    @property
    def shown(self) -> str:
        """Its text with a sign for everything that could not be seen, or would steer a terminal."""
        if self.kind in ("read", "drawn"):
            return f"{'img' if self.kind == 'read' else 'draw'} x{len(self.ids)}"
        if not self.text.strip(" "):
            return _SIGNS[" "] * len(self.text)
        return "".join(map(_show_character, self.text))


class PieceCutter:
    """Cuts samples into pieces; every token lands in exactly one.

    Args:
        tokenizer: the one the samples were encoded with.
        image_ids: of its image tokens; None looks them up.
    """

    def __init__(
        self, *, tokenizer: PreTrainedTokenizerFast, image_ids: ImageIds | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._tags = (ImageIds.of(tokenizer) if image_ids is None else image_ids).tags
        self._locations = box_ids(tokenizer)
        self._reserved = reserved_ids(tokenizer)

    def cut(self, sample: Sample) -> tuple[TokenPiece, ...]:
        """The pieces of a sample, in order."""
        ids: list[int] = sample.input_ids.tolist()
        labels: list[int] = sample.labels.tolist()
        slots = _find_slots(sample)
        marks = [
            (
                *slots.get(place, (self._kind(number), None)),
                # Nothing comes before a first token, so nothing can predict it.
                place > 0 and labels[place] != IGNORED_LABEL,
            )
            for place, number in enumerate(ids)
        ]
        pieces: list[TokenPiece] = []
        for (kind, tile, carries_loss), run in itertools.groupby(
            range(len(ids)), key=lambda place: marks[place]
        ):
            places = list(run)
            pieces += [
                TokenPiece(
                    begin=begin,
                    ids=tuple(ids[begin:end]),
                    text=text,
                    kind=kind,
                    carries_loss=carries_loss,
                    tile=tile,
                )
                for begin, end, text in self._divide(ids, places[0], places[-1] + 1, kind)
            ]
        return tuple(pieces)

    def _kind(self, number: int) -> Kind:
        if number in self._tags:
            return "tag"
        if number in self._locations:
            return "location"
        return "control" if number in self._reserved else "text"

    def _divide(
        self, ids: Sequence[int], begin: int, end: int, kind: Kind
    ) -> Iterator[tuple[int, int, str]]:
        """Begin, end and text of each piece of a run of one kind."""
        if kind in ("read", "drawn"):
            yield begin, end, self._name(ids[begin])
        elif kind == "text":
            yield from self._spell(ids, begin, end)
        else:
            yield from ((place, place + 1, self._name(ids[place])) for place in range(begin, end))

    def _spell(self, ids: Sequence[int], begin: int, end: int) -> Iterator[tuple[int, int, str]]:
        """As few tokens at a time as spell whole characters.

        Each is decoded behind the piece before it, because some tokenizers drop the space in front
        of what stands alone.
        """
        before, start = max(begin - 1, 0), begin
        for place in range(begin, end):
            known = self._decode(ids[before:start])
            text = self._decode(ids[before : place + 1])[len(known) :]
            is_partial = text.endswith(_BROKEN_CHARACTER) and place + 1 < end
            if is_partial and place + 1 - start < _MOST_TOKENS_OF_A_CHARACTER:
                continue
            yield start, place + 1, text or self._name(ids[start])
            before, start = start, place + 1

    def _decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(
            list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )

    def _name(self, number: int) -> str:
        return str(self._tokenizer.convert_ids_to_tokens(number))


def _find_slots(sample: Sample) -> dict[int, tuple[Kind, int]]:
    """Kind and tile of every place that is a slot."""
    found: dict[int, tuple[Kind, int]] = {}
    kinds: tuple[Kind, Kind] = ("read", "drawn")
    joined = sample.grid_slots is not None and sample.grid_sources is not None
    read_tiles = sample.read_tiles[:0] if joined else sample.read_tiles
    pairs = ((read_tiles, sample.read_slots), (sample.draw_tiles, sample.draw_slots))
    for kind, (tiles, slots) in zip(kinds, pairs, strict=True):
        for tile, places in zip(tiles.tolist(), slots.tolist(), strict=True):
            found.update(dict.fromkeys(places, (kind, tile)))
    if sample.grid_slots is not None and sample.grid_sources is not None:
        wholes = sample.read_tiles[whole_tiles(sample.grid_sources, sample.read_slots.shape[1])]
        for place, tile in zip(sample.grid_slots.tolist(), wholes.tolist(), strict=True):
            found[place] = ("read", tile)
    return found


def _show_character(character: str) -> str:
    if character == " " or character.isprintable():
        return character
    return _SIGNS.get(character) or character.encode("unicode_escape").decode("ascii")
