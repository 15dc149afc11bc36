"""Read a planned pack: rows to conversations to samples to one batch; runs in loader workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from torch.utils.data import Dataset

from mllm_npu.batch import Batch, Sample
from mllm_npu.data.collate import BlankTile, collate
from mllm_npu.data.hashing import random_of
from mllm_npu.data.pack import Pack, Pick
from mllm_npu.data.skips import USED, Outcome
from mllm_npu.data.source import SampleSource
from mllm_npu.errors import DataError, SampleFiltered, SkipSample
from mllm_npu.processing.layout import TokenLayout
from mllm_npu.processing.processor import Processor
from mllm_npu.processing.tile_buffer import TileBuffer


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPack:
    """A pack as it was read.

    Args:
        batch: the samples that could be used; None after a failure.
        outcomes: of every planned sample, in order.
        failure: why reading cannot go on at all; empty if it can.
    """

    batch: Batch | None
    outcomes: tuple[Outcome, ...] = ()
    failure: str = ""


@dataclass(frozen=True, slots=True)
class NoPack:
    """A pack that could not be planned.

    Args:
        failure: why.
    """

    failure: str


class PackReader(Dataset[ReadPack]):
    """Turns a pack of the plan into a batch; the same pack gives the same batch in any process.

    Args:
        sources: what the plan's source numbers mean.
        processor: encodes conversations.
        tokens_per_pack: budget of a pack; samples that do not fit are skipped and counted.
        tiles_per_pack: budget of vision tiles; None for no limit.
        seed: of the run; each sample's randomness follows from it, the visit, the source and the
            index.
    """

    def __init__(
        self,
        *,
        sources: Sequence[SampleSource],
        processor: Processor,
        tokens_per_pack: int,
        tiles_per_pack: int | None = None,
        seed: int,
    ) -> None:
        self.sources = tuple(sources)
        self.processor = processor
        self.tokens_per_pack = tokens_per_pack
        self.tiles_per_pack = tiles_per_pack
        self.seed = seed
        self.blank = BlankTile.of(processor)

    def __getitem__(self, pack: Pack | NoPack) -> ReadPack:
        """Read a pack; a failure is a value here, so that it leaves a worker as one message.

        All texts are laid out first, then all pictures are cut into one piece of memory.
        """
        if isinstance(pack, NoPack):
            return ReadPack(batch=None, failure=pack.failure)
        outcomes = [USED] * len(pack)
        layouts: list[tuple[int, TokenLayout, Random]] = []
        room = self.tokens_per_pack
        for place, pick in enumerate(pack):
            try:
                layout, rng = self._lay_out(pick)
                self._check(layout, room)
            except SkipSample as skip:
                outcomes[place] = _explain(self.sources[pick.source], pick, skip)
            except DataError as error:
                return ReadPack(batch=None, failure=str(error))
            else:
                layouts.append((place, layout, rng))
                room -= layout.num_tokens
        # One tile more, for the blank of a pack in which nothing is read or drawn.
        capacity = sum(layout.num_tiles for _, layout, _ in layouts) + 1
        buffer = TileBuffer(capacity=capacity, tile_size=self.blank.tile_size)
        samples: list[Sample] = []
        for place, layout, rng in layouts:
            used = buffer.used
            try:
                samples.append(self.processor.fill(layout, rng=rng, buffer=buffer))
            except SkipSample as skip:
                buffer.used = used
                pick = pack.picks[place]
                outcomes[place] = _explain(self.sources[pick.source], pick, skip)
        batch = collate(samples, blank=self.blank, buffer=buffer)
        return ReadPack(batch=batch, outcomes=tuple(outcomes))

    def read(self, pick: Pick) -> Sample:
        """One sample of a plan.

        Raises:
            SkipSample: if it cannot be used.
            DataError: if its shard cannot be read.
        """
        layout, rng = self._lay_out(pick)
        return self.processor.fill(layout, rng=rng)

    def _lay_out(self, pick: Pick) -> tuple[TokenLayout, Random]:
        source = self.sources[pick.source]
        rng = random_of(self.seed, pick.visit, source.name, pick.sample)
        return self.processor.lay_out(source.conversation(pick.sample, rng, pick.form)), rng

    def _check(self, layout: TokenLayout, room: int) -> None:
        if layout.num_tokens > self.tokens_per_pack:
            raise SkipSample("longer than tokens_per_pack")
        if self.tiles_per_pack is not None and layout.num_tiles > self.tiles_per_pack:
            raise SkipSample("more tiles than tiles_per_pack")
        if layout.num_tokens > room:
            raise SkipSample("longer than estimated, so its pack is full")


def _explain(source: SampleSource, pick: Pick, skip: SkipSample) -> Outcome:
    """Where a skipped sample lies; its row is read once more for its name."""
    try:
        key = source.row(pick.sample).key
    except DataError:
        key = ""
    return Outcome(
        reason=str(skip),
        is_fault=not isinstance(skip, SampleFiltered),
        source=source.name,
        shard=source.where(pick.sample),
        key=key,
        sample=pick.sample,
    )
