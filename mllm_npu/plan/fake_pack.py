"""Make packs of the size a run will see, where its data are not at hand.

Shape letters: L tokens of a sequence, Q tokens per read tile, P tokens per drawn picture, I tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mllm_npu.batch import IGNORED_LABEL, Batch, Sample
from mllm_npu.config import Config, plain
from mllm_npu.data.collate import BlankTile, collate
from mllm_npu.errors import ConfigError

_FRAME = 2
"""Tokens around a picture: its begin and its end."""
_LEAST_TEXT = 4
_TOKENS_PER_PACK = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class PackSize:
    """What a pack holds.

    Args:
        tokens: of the whole pack.
        sequence_tokens: of each of its sequences; the last one takes what is left.
        tiles: that are read in a sequence which reads.
        drawn_share: of the sequences draw a picture; the others read one.
        source: where these numbers are from, for a report.
    """

    tokens: int
    sequence_tokens: int
    tiles: int
    drawn_share: float = 0.0
    source: str = "given"

    def __post_init__(self) -> None:
        if min(self.tokens, self.sequence_tokens) < 1 or self.tiles < 0:
            raise ConfigError(
                f"A pack of {self.tokens} tokens, {self.sequence_tokens} a sequence, and "
                f"{self.tiles} tiles was asked for. Give at least one token and no negative number."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureSize:
    """What pictures take in a pack.

    Args:
        tile_size: pixels of a tile's edge.
        num_read_tokens: Q.
        num_drawn_tokens: P; 0 for a model that only reads.
        picture_size: pixels of a drawn picture's edge where an image decoder is trained.
        has_conditions: whether that decoder takes a picture to change.
    """

    tile_size: int
    num_read_tokens: int
    num_drawn_tokens: int
    picture_size: int | None
    has_conditions: bool

    @classmethod
    def of(cls, model: nn.Module, config: Config) -> PictureSize:
        """What a model and its processor ask for."""
        parts: Any = model
        projector, drawn = getattr(parts, "projector", None), getattr(parts, "drawn_features", None)
        processor: dict[str, Any] = plain(config.processor)
        read = processor.get("num_read_tokens", 1) if projector is None else projector.num_queries
        return cls(
            tile_size=parts.vision_encoder.tile_size,
            num_read_tokens=read,
            num_drawn_tokens=0 if drawn is None else drawn.num_tokens,
            picture_size=processor.get("picture_size"),
            has_conditions=bool(processor.get("condition_pictures")),
        )


def pack_size(config: Config, pictures: PictureSize) -> PackSize:
    """What the configuration says about its packs; what it leaves open is assumed.

    A sequence is as long as a sample may be, and a picture has as many tiles as the grids have on
    average. Of a model that draws, every second sequence draws.

    Args:
        config: of a stage.
        pictures: what they take.
    """
    dataset, processor = plain(config.dataset), plain(config.processor)
    tokens = int(dataset.get("tokens_per_pack") or _TOKENS_PER_PACK)
    longest = int(processor.get("max_tokens") or tokens)
    drawn = pictures.num_drawn_tokens
    if pictures.picture_size is not None and drawn:
        # An image decoder is trained on pictures alone.
        longest, share = drawn + _FRAME, 1.0
    else:
        share = 0.5 if drawn else 0.0
    length = min(tokens, longest)
    tiles = _mean_tiles(processor.get("any_resolution") or {})
    most = dataset.get("tiles_per_pack")
    reading = max(1, round(-(-tokens // length) * (1 - share)))
    if most is not None:
        tiles = min(tiles, max(1, int(most) // reading))
    return PackSize(
        tokens=tokens,
        sequence_tokens=length,
        tiles=tiles,
        drawn_share=share,
        source="tokens_per_pack and max_tokens of the configuration, the mean of its grids",
    )


def make_pack(
    size: PackSize, pictures: PictureSize, *, vocab_size: int, generator: torch.Generator
) -> Batch:
    """A pack on the host, with random tokens and tiles.

    Args:
        size: what it holds.
        pictures: what they take.
        vocab_size: token ids are below it.
        generator: of the random numbers.
    """
    blank = BlankTile(
        tile_size=pictures.tile_size,
        num_read_tokens=pictures.num_read_tokens,
        num_drawn_tokens=pictures.num_drawn_tokens,
        token_id=0,
        picture_size=pictures.picture_size,
        condition_pictures=pictures.has_conditions,
    )
    samples, drawing = [], 0.0
    for number, length in enumerate(_lengths(size)):
        drawing += size.drawn_share
        draws = int(drawing >= 1 - 1e-9)
        drawing -= draws
        reads = 0 if draws else size.tiles
        sample = _Sequence(length=length, tiles=reads, drawn=draws, pictures=pictures)
        samples.append(sample.make(number, vocab_size, generator))
    return collate(samples, blank=blank)


class PackSource:
    """The packs of the steps.

    Args:
        config: of a stage.
        model: that learns from them.
        size: what they hold; None takes it from the configuration.
        given: packs to take instead, on the host, again and again.
    """

    def __init__(
        self,
        config: Config,
        model: nn.Module,
        *,
        size: PackSize | None,
        given: Sequence[Batch] | None,
    ) -> None:
        self._given = given
        self._taken = 0
        self._pictures = PictureSize.of(model, config)
        self._size = size or pack_size(config, self._pictures)
        self._vocab_size = getattr(getattr(model, "language_model", None), "vocab_size", 64)
        self._generator = torch.Generator().manual_seed(0)

    def take(self, number: int) -> list[Batch]:
        """The next ones, on the host."""
        return [self._next() for _ in range(number)]

    def _next(self) -> Batch:
        if self._given:
            self._taken += 1
            return self._given[(self._taken - 1) % len(self._given)]
        return make_pack(
            self._size, self._pictures, vocab_size=self._vocab_size, generator=self._generator
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sequence:
    """What one sequence of a pack holds; pictures it has no room for are left out."""

    length: int
    tiles: int
    drawn: int
    pictures: PictureSize

    def make(self, number: int, vocab_size: int, generator: torch.Generator) -> Sample:
        pictures = self.pictures
        read, drawn = pictures.num_read_tokens, pictures.num_drawn_tokens
        room = self.length
        num_drawn = min(self.drawn, room // (drawn + _FRAME)) if drawn else 0
        room -= num_drawn * (drawn + _FRAME)
        num_read = min(self.tiles, max(0, room - _LEAST_TEXT) // (read + _FRAME))
        ids = torch.randint(0, vocab_size, (self.length,), generator=generator)
        labels = ids.clone()
        read_slots, end = _slots(num_read, read, 0)
        draw_slots, end = _slots(num_drawn, drawn, end)
        labels[:end] = IGNORED_LABEL
        edge = pictures.picture_size
        drawn_pictures = None if edge is None else _pixels(num_drawn, edge, generator)
        has_conditions = pictures.has_conditions and drawn_pictures is not None
        return Sample(
            input_ids=ids,
            labels=labels,
            tiles=_pixels(num_read + num_drawn, pictures.tile_size, generator),
            tile_positions=torch.full((num_read + num_drawn, 2), 0.5),
            read_tiles=torch.arange(num_read),
            read_slots=read_slots,
            draw_tiles=torch.arange(num_read, num_read + num_drawn),
            draw_slots=draw_slots,
            pictures=drawn_pictures,
            conditions=drawn_pictures if has_conditions else None,
            condition_weights=torch.ones(num_drawn) if has_conditions else None,
            key=str(number),
            source="plan",
            task="plan",
        )


def _slots(count: int, width: int, start: int) -> tuple[Tensor, int]:
    """Places of some pictures one behind the other, int64 [count, width], and where they end."""
    firsts = start + 1 + torch.arange(count) * (width + _FRAME)
    return firsts[:, None] + torch.arange(width), start + count * (width + _FRAME)


def _pixels(count: int, edge: int, generator: torch.Generator) -> Tensor:
    """Pictures that differ, without drawing each of their numbers, uint8 [count, 3, edge, edge]."""
    marks = torch.randint(0, 256, (count, 8), generator=generator, dtype=torch.uint8)
    pixels = torch.zeros(count, 3, edge, edge, dtype=torch.uint8)
    pixels.view(count, 3 * edge * edge)[:, :8] = marks
    return pixels


def _lengths(size: PackSize) -> Sequence[int]:
    length = min(size.sequence_tokens, size.tokens)
    whole, rest = divmod(size.tokens, length)
    return [length] * whole + ([rest] if rest > _LEAST_TEXT else [])


def _mean_tiles(any_resolution: dict[str, Any]) -> int:
    """Of the grids on average, the whole picture among them; 1 where no grid is named."""
    grids = [str(grid).split("x") for grid in any_resolution.get("grids") or ["1x1"]]
    again = int(bool(any_resolution.get("repeat_single_tile")))
    counts = [int(columns) * int(rows) for columns, rows in grids]
    tiles = [count + 1 if count > 1 else 1 + again for count in counts]
    return max(1, round(sum(tiles) / len(tiles)))
