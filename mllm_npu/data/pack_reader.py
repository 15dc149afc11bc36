"""Read a planned pack: rows to conversations to samples to one batch; runs in loader workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from torch.utils.data import Dataset

from mllm_npu.batch import Batch, Sample
from mllm_npu.data.collate import BlankTile, collate
from mllm_npu.data.plan import Pack, Pick
from mllm_npu.data.skips import Outcome
from mllm_npu.data.source import SampleSource
from mllm_npu.errors import DataError, SkipSample
from mllm_npu.processing.processor import Processor


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


class PackReader(Dataset[ReadPack]):
    """Turns a pack of the plan into a batch; the same pack gives the same batch in any process.

    Args:
        sources: what the plan's source numbers mean.
        processor: encodes conversations.
        tokens_per_pack: budget of a pack; samples that do not fit are skipped and counted.
        seed: of the run; each sample's randomness follows from it, the visit, the source and the
            index.
    """

    def __init__(
        self,
        *,
        sources: Sequence[SampleSource],
        processor: Processor,
        tokens_per_pack: int,
        seed: int,
    ) -> None:
        self.sources = tuple(sources)
        self.processor = processor
        self.tokens_per_pack = tokens_per_pack
        self.seed = seed
        self.blank = BlankTile.of(processor)

    def __getitem__(self, pack: Pack) -> ReadPack:
        """Read a pack; a failure is a value here, so that it leaves a worker as one message."""
        room = self.tokens_per_pack
        samples: list[Sample] = []
        outcomes: list[Outcome] = []
        for pick in pack:
            source = self.sources[pick.source]
            reason = ""
            try:
                sample = self._read(source, pick)
                if sample.num_tokens > self.tokens_per_pack:
                    reason = "longer than tokens_per_pack"
                elif sample.num_tokens > room:
                    reason = "longer than estimated, so its pack is full"
                else:
                    samples.append(sample)
                    room -= sample.num_tokens
            except SkipSample as skip:
                reason = str(skip)
            except DataError as error:
                return ReadPack(batch=None, failure=str(error))
            where = f"{source.name} ({source.where(pick.sample)})" if reason else ""
            outcomes.append(Outcome(where=where, reason=reason))
        return ReadPack(batch=collate(samples, blank=self.blank), outcomes=tuple(outcomes))

    def _read(self, source: SampleSource, pick: Pick) -> Sample:
        rng = Random(f"{self.seed}/{pick.visit}/{source.name}/{pick.sample}")
        return self.processor.encode(source.conversation(pick.sample, rng), rng=rng)
