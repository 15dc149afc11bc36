"""Loader: endless packed batches of weighted sources, resumable to the exact sample.

The plan is one long row of packs over all epochs. Rank ``r`` of ``w`` takes packs ``r, r + w, r +
2w, ...`` of it, so the position is one number that holds for any number of workers and, at a
step's end, for all ranks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from mllm_npu.batch import Batch
from mllm_npu.data.curriculum import Curriculum
from mllm_npu.data.mixture import PLAN_WINDOW
from mllm_npu.data.pack import Pack
from mllm_npu.data.pack_order import PackOrder, Position
from mllm_npu.data.pack_reader import NoPack, PackReader, ReadPack
from mllm_npu.data.plan import Plan, Weighing
from mllm_npu.data.sample_order import SHUFFLE_WINDOW
from mllm_npu.data.skips import Skips
from mllm_npu.data.source import SampleSource
from mllm_npu.data.worker_process import prepare_workers, read_in_workers
from mllm_npu.errors import CheckpointError, ConfigError, DataError
from mllm_npu.processing.processor import Processor

STATE_VERSION = 2


class PackedBatches(Iterator[Batch]):
    """Iterates over packed batches of this rank.

    A sample that cannot be used is left out, counted in ``skipped`` by reason and listed in the
    quarantine; a pack in which none can be used is a blank batch, so that all ranks stay in step.

    Args:
        sources: data sets with their weights; names must differ.
        processor: encodes conversations; its samples must fit one pack.
        tokens_per_pack: largest number of tokens in a batch, blank sequence not counted.
        seed: of order and of every sample's own randomness.
        rank: number of this process among those that train together.
        world_size: number of those processes.
        num_workers: loader processes; 0 reads in this one. Does not change any batch.
        epochs: how many to give; None for no end. The last step, if not all ranks get a pack, is
            left out.
        samples_per_epoch: None for the sum of the sources' sizes.
        tiles_per_pack: largest number of vision tiles in a batch; None for no limit.
        weigh_by: what a source's weight is a share of: samples or target_tokens.
        curriculum: weights that change by step, instead of the sources' own.
        shuffle_window: samples of a source that are shuffled among each other.
        plan_window: samples among which packs are formed.
        quarantine: JSON lines file that lists what was left out and why; ranks beyond the first
            write files of their own beside it. None lists nothing.
        max_skip_share: share of faulty samples among the last ones that stops the run.

    Attributes:
        order: the plan this rank walks through.

    Raises:
        ConfigError: if the arguments do not fit together.
    """

    def __init__(
        self,
        *,
        sources: Sequence[SampleSource],
        processor: Processor,
        tokens_per_pack: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        epochs: int | None = None,
        samples_per_epoch: int | None = None,
        tiles_per_pack: int | None = None,
        weigh_by: Weighing = "samples",
        curriculum: Curriculum | None = None,
        shuffle_window: int = SHUFFLE_WINDOW,
        plan_window: int = PLAN_WINDOW,
        quarantine: str | Path | None = None,
        max_skip_share: float = 0.1,
    ) -> None:
        _check(sources, rank, world_size, num_workers, epochs)
        self.sources = tuple(sources)
        self.rank = rank
        self.world_size = world_size
        self.num_workers = num_workers
        self.epochs = epochs
        plan = Plan(
            sources=self.sources,
            processor=processor,
            tokens_per_pack=tokens_per_pack,
            tiles_per_pack=tiles_per_pack,
            seed=seed,
            samples_per_epoch=samples_per_epoch,
            weigh_by=weigh_by,
            curriculum=curriculum,
            shuffle_window=shuffle_window,
            plan_window=plan_window,
        )
        if num_workers:
            prepare_workers()
        self.order = PackOrder(plan=plan)
        self.reader = PackReader(
            sources=self.sources,
            processor=processor,
            tokens_per_pack=tokens_per_pack,
            tiles_per_pack=tiles_per_pack,
            seed=seed,
        )
        self._fingerprint = plan.fingerprint()
        self._skips = Skips(quarantine=_of_rank(quarantine, rank), max_share=max_skip_share)
        self._told_breaks = rank != 0
        self._position = Position()
        self._packs: Iterator[ReadPack] | None = None
        self._behind: deque[Position] = deque()

    @property
    def skipped(self) -> dict[str, int]:
        """Samples of this rank that were left out since the start, by reason."""
        return dict(self._skips.by_reason)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        """The next batch of this rank; the position moves on only here.

        Raises:
            DataError: if a shard cannot be read, or too many samples are skipped.
        """
        if self._packs is None:
            self._packs = self._open()
        read = next(self._packs)
        try:
            batch = self._accept(read)
        except DataError:
            self.close()
            raise
        self._position = self._behind.popleft()
        return batch

    def _read(self, pack: Pack) -> Batch:
        """A pack apart from the walk; what is left out of it is not counted."""
        read = self.reader[pack]
        if read.batch is None:
            raise DataError(read.failure)
        return read.batch

    def _accept(self, read: ReadPack) -> Batch:
        if read.batch is None:
            raise DataError(read.failure)
        self._skips.note(read.outcomes)
        return read.batch

    def preview(self) -> Iterator[Batch]:
        """Batches from the start on, those of all ranks in their order; the position stays.

        Every rank gets the same, and so does every number of ranks.
        """
        for pack, _ in self.order.packs(Position()):
            yield self._read(pack)

    def rehearsal(self) -> list[Batch]:
        """Packs to try before a run: a quarter of the largest of the first window, then that one.

        Largest by tokens, and by tiles where that is another; a sample beyond the budgets, which
        is left out, does not count. The position stays.
        """
        plan = self.order.plan
        most_tiles = float("inf") if plan.tiles_per_pack is None else plan.tiles_per_pack
        packs = [
            pack
            for pack in plan.window(0, 0).packs
            if pack.num_tokens <= plan.tokens_per_pack and pack.num_tiles <= most_tiles
        ]
        if not packs:
            return []
        by_tokens = max(packs, key=lambda pack: pack.num_tokens)
        by_tiles = max(packs, key=lambda pack: (pack.num_tiles, pack.num_tokens))
        few = by_tokens.picks[: max(1, len(by_tokens) // 4)]
        chosen = dict.fromkeys([Pack(few, 0, 0), by_tokens, by_tiles])
        return [self._read(pack) for pack in chosen]

    def close(self) -> None:
        """Stop the workers; the next batch starts them again at the same position."""
        self._packs = None

    def state_dict(self) -> dict[str, Any]:
        """The position behind the last batch handed out, the same on every rank at a step's end."""
        return {"version": STATE_VERSION, **self._position._asdict(), "plan": self._fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind a saved position, with any number of workers and ranks.

        Raises:
            CheckpointError: if the state belongs to another plan, whose packs would not be these.
            DataError: if a shard is gone.
        """
        if state.get("version") != STATE_VERSION:
            raise CheckpointError(
                f"A data position of version {state.get('version')} was given, this is version "
                f"{STATE_VERSION}. Start the data anew, or use the release that wrote it."
            )
        if state["plan"] != self._fingerprint:
            raise CheckpointError(
                "The data position was saved with other sources, weights, seed, budgets, windows, "
                "samples_per_epoch, tokenizer or prompts than are set now, so its packs would "
                "not be these. Restore that configuration, or start a new run from the weights."
            )
        self._position = Position(int(state["epoch"]), int(state["consumed"]))
        self.close()
        next(self.order.packs(self._position))

    def _open(self) -> Iterator[ReadPack]:
        """Read this rank's packs from the position on, in this process or in workers."""
        self._tell_breaks()
        self._behind = deque()
        walk = self.order.walk(
            self._position, rank=self.rank, world_size=self.world_size, epochs=self.epochs
        )
        packs = _note_positions(walk, self._behind)
        if self.num_workers == 0:
            return map(self.reader.__getitem__, packs)
        return read_in_workers(self.reader, packs, num_workers=self.num_workers)

    def _tell_breaks(self) -> None:
        """List broken places of shards once, when the first batch is asked for."""
        if self._told_breaks:
            return
        self._told_breaks = True
        for source in self.sources:
            for head in source.heads:
                self._skips.note_breaks(source.name, head.path, head.breaks)


def _note_positions(
    walk: Iterator[tuple[Pack, Position]], behind: deque[Position]
) -> Iterator[Pack | NoPack]:
    """The packs of a walk; the position behind each is ours once the pack is read.

    It knows nothing of the loader: workers whose end waits for a reference cycle end late. And it
    raises nothing: ``DataLoader`` asks for the first packs while it starts its workers, and leaves
    them half started behind an error.
    """
    try:
        for pack, position in walk:
            behind.append(position)
            yield pack
    except DataError as error:
        yield NoPack(str(error))


def _of_rank(quarantine: str | Path | None, rank: int) -> Path | None:
    """A file of each rank's own."""
    if quarantine is None:
        return None
    path = Path(quarantine)
    return path if rank == 0 else path.with_name(f"{path.stem}-rank{rank}{path.suffix}")


def _check(
    sources: Sequence[SampleSource],
    rank: int,
    world_size: int,
    num_workers: int,
    epochs: int | None,
) -> None:
    names = [source.name for source in sources]
    if not names or len(set(names)) != len(names):
        raise ConfigError(
            f"Sources {names} were asked for. Give at least one, with names that differ."
        )
    if not 0 <= rank < world_size:
        raise ConfigError(
            f"rank={rank} of world_size={world_size} was asked for. Use 0 to size - 1."
        )
    if num_workers < 0 or (epochs is not None and epochs < 1):
        raise ConfigError(
            f"num_workers={num_workers}, epochs={epochs} were asked for. Use 0 or more workers, "
            "1 or more epochs or null."
        )
