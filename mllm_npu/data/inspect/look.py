"""Look: some samples and packs of a plan, picked by a seed and read as in training."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from mllm_npu.data.inspect.pack_view import PackView, view_pack
from mllm_npu.data.inspect.sample_view import SampleView, view_sample
from mllm_npu.data.inspect.token_piece import PieceCutter
from mllm_npu.data.pack import Pick, PlannedWindow
from mllm_npu.data.pack_reader import PackReader
from mllm_npu.data.plan import Plan
from mllm_npu.errors import ConfigError, SkipSample

Progress = Callable[[int, int], None]

_TRIES = 10
"""Picks that are tried for every sample that is wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was read.

    Args:
        epoch: of the plan.
        window: of that epoch.
        num_windows: of that epoch.
        sources: names of all data sets, in the order of the plan.
        samples: data set after data set.
        packs: in the order in which they are trained.
        tokens_per_pack: budget of tokens.
        left_out: reasons of samples that could not be used, counted.
    """

    epoch: int
    window: int
    num_windows: int
    sources: tuple[str, ...]
    samples: tuple[SampleView, ...]
    packs: tuple[PackView, ...]
    tokens_per_pack: int
    left_out: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be seen.

    Args:
        num_samples: samples, of all data sets in turn.
        num_packs: packs.
        epoch: of the plan.
        source: name of the only data set to take samples from; empty takes all. Packs are then
            such that hold it.
        seed: of the choice; the plan has its own.

    Raises:
        ConfigError: if a number is negative.
    """

    num_samples: int = 12
    num_packs: int = 4
    epoch: int = 0
    source: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.num_samples, self.num_packs, self.epoch) < 0:
            raise ConfigError(
                f"{self.num_samples} samples and {self.num_packs} packs of epoch {self.epoch} were "
                "asked for. Give numbers from 0 on."
            )


def take_look(
    plan: Plan, reader: PackReader, wish: Wish, *, progress: Progress | None = None
) -> Look:
    """Read samples and packs of a window of a plan.

    Args:
        plan: what is trained.
        reader: reads its picks.
        wish: what is to be seen.
        progress: is told how much of it is done.

    Raises:
        ConfigError: if there is no such data set, or the epoch takes nothing from it.
        DataError: if a shard cannot be read.
    """
    rng = Random(f"look/{wish.seed}")
    number, window = _find_window(plan, wish, rng)
    total = wish.num_samples + wish.num_packs
    seen: Counter[str] = Counter()

    def told(done: int) -> None:
        if progress is not None:
            progress(done, total)

    samples: list[SampleView] = []
    for sample in itertools.islice(_read_samples(plan, reader, wish, window, rng, seen), total):
        if len(samples) == wish.num_samples:
            break
        samples.append(sample)
        told(len(samples))
    samples.sort(key=lambda sample: sample.pick.source)
    packs = []
    for place in _choose_packs(plan, wish, window, rng):
        packs.append(
            view_pack(
                reader[window.packs[place]],
                number=place,
                tokens_per_pack=plan.tokens_per_pack,
                planned_tokens=window.tokens[place],
            )
        )
        seen.update(packs[-1].left_out)
        told(wish.num_samples + len(packs))
    return Look(
        epoch=wish.epoch,
        window=number,
        num_windows=plan.num_windows(wish.epoch),
        sources=tuple(source.name for source in plan.sources),
        samples=tuple(samples),
        packs=tuple(packs),
        tokens_per_pack=plan.tokens_per_pack,
        left_out=dict(seen.most_common()),
    )


def _find_window(plan: Plan, wish: Wish, rng: Random) -> tuple[int, PlannedWindow]:
    """A window of the epoch, the next one that has what is wished."""
    names = [source.name for source in plan.sources]
    if wish.source and wish.source not in names:
        raise ConfigError(
            f"source {wish.source!r} was asked for, the data sets are {', '.join(names)}. "
            "Give one of these."
        )
    num_windows = plan.num_windows(wish.epoch)
    first = rng.randrange(num_windows)
    for step in range(num_windows):
        number = (first + step) % num_windows
        window = plan.window(wish.epoch, number)
        if not wish.source or any(_holds(plan, pack, wish.source) for pack in window.packs):
            return number, window
    raise ConfigError(
        f"source {wish.source!r} was asked for, and epoch {wish.epoch} takes no sample of it. Give "
        "it a weight, or look at another epoch."
    )


def _holds(plan: Plan, pack: Iterable[Pick], source: str) -> bool:
    return any(plan.sources[pick.source].name == source for pick in pack)


def _choose_packs(plan: Plan, wish: Wish, window: PlannedWindow, rng: Random) -> list[int]:
    places = [
        place
        for place, pack in enumerate(window.packs)
        if not wish.source or _holds(plan, pack, wish.source)
    ]
    return sorted(rng.sample(places, min(wish.num_packs, len(places))))


def _read_samples(
    plan: Plan,
    reader: PackReader,
    wish: Wish,
    window: PlannedWindow,
    rng: Random,
    seen: Counter[str],
) -> Iterator[SampleView]:
    """Samples of the data sets in turn; notes why some cannot be used."""
    if not wish.num_samples:
        return
    cutter = PieceCutter(tokenizer=reader.processor.tokenizer, image_ids=reader.processor.image_ids)
    picks = _take_turns(plan, wish, window, rng)
    for pick in itertools.islice(picks, wish.num_samples * _TRIES):
        try:
            yield _read(reader, pick, cutter)
        except SkipSample as skip:
            seen[str(skip)] += 1


def _take_turns(plan: Plan, wish: Wish, window: PlannedWindow, rng: Random) -> Iterator[Pick]:
    """Picks of a window, data set after data set in turn, and in each form after form."""
    groups: dict[int, dict[int, list[Pick]]] = {}
    for pick in itertools.chain.from_iterable(window.packs):
        if not wish.source or plan.sources[pick.source].name == wish.source:
            groups.setdefault(pick.source, {}).setdefault(pick.form, []).append(pick)
    rows = []
    for _, forms in sorted(groups.items()):
        for picks in forms.values():
            rng.shuffle(picks)
        rows.append(_round_robin([forms[form] for form in _ends_first(sorted(forms))]))
    return _round_robin(rows)


def _ends_first(forms: Sequence[int]) -> list[int]:
    """First, last, second, last but one, ...: tasks number reading first and drawing last."""
    pairs = zip(forms, reversed(forms), strict=True)
    return list(dict.fromkeys(form for pair in pairs for form in pair))


def _round_robin(rows: Sequence[Sequence[Pick] | Iterator[Pick]]) -> Iterator[Pick]:
    waiting = [iter(row) for row in rows]
    while waiting:
        for row in list(waiting):
            pick = next(row, None)
            if pick is None:
                waiting.remove(row)
            else:
                yield pick


def _read(reader: PackReader, pick: Pick, cutter: PieceCutter) -> SampleView:
    source = reader.sources[pick.source]
    # Only sizes and order of the pictures are taken from the conversation; the form fixes both,
    # so it may be told with another random source than the sample's.
    conversation = source.conversation(pick.sample, Random(0), pick.form)
    return view_sample(
        reader.read(pick),
        conversation,
        pick=pick,
        shard=source.where(pick.sample),
        cutter=cutter,
        any_resolution=reader.processor.any_resolution,
    )
