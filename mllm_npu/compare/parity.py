"""Compare two sides: run A and keep what it gives, free it, run B and compare as it goes."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from mllm_npu.compare.bench import Bench, build_bench, read_packs
from mllm_npu.compare.bounds import Bounds
from mllm_npu.compare.comparison import Comparison
from mllm_npu.compare.record_file import Record, read_record, write_record
from mllm_npu.compare.recording import Recording
from mllm_npu.compare.run import Wish, run_side
from mllm_npu.compare.side import Side, read_side
from mllm_npu.compare.side_config import SideConfigs, counted_settings, differing_settings
from mllm_npu.compare.tensor_store import TensorStore
from mllm_npu.compare.verdict import Verdict, judge
from mllm_npu.config import Config
from mllm_npu.errors import ConfigError

Say = Callable[[str], None]
_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """What a comparison has found.

    Args:
        comparison: the numbers; tensors are gone.
        verdict: what they say.
    """

    comparison: Comparison
    verdict: Verdict


def compare_sides(
    words: Sequence[str],
    overrides: Sequence[str],
    wish: Wish,
    *,
    record: Path | None = None,
    say: Say = lambda _: None,
) -> Parity | None:
    """Run one or two sides.

    Args:
        words: sides; with ``record`` one is enough.
        overrides: Hydra overrides of the run.
        wish: what is compared.
        record: file to write side A to.
        say: is told in one line what happens.

    Returns:
        What the comparison has found; None where there was nothing to compare.

    Raises:
        MllmNpuError: a side that is none, cannot be built, or does not fit the other.
    """
    sides = [read_side(word) for word in words]
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="parity-")))
        configs = SideConfigs(sides, overrides, scratch=scratch)
        # Both before one runs: a mistake in the second is not to be found an hour later.
        composed = [None if side.kind == "record" else configs.of(side) for side in sides]
        known = _first_side(sides[0], composed[0], overrides, wish, say, stack)
        if record is not None:
            _write(record, known, sides[0], say)
        if len(sides) == 1:
            return None
        if sides[0].kind == "record":
            _require_settings(known, composed[1], sides[1])
        comparison = _second_side(sides[1], composed[1], known, wish, say)
        return Parity(comparison=comparison, verdict=judge(comparison))


def _first_side(
    side: Side,
    config: Config | None,
    overrides: Sequence[str],
    wish: Wish,
    say: Say,
    stack: ExitStack,
) -> Record:
    if config is None:
        known = read_record(side.path)
        _require_wish(known, wish, side)
        stack.callback(known.recording.store.close)
        say(f"A: {side}, recorded of {known.recording.facts.side}")
        return known
    bench = build_bench(side, config)
    say(f"A: {side} on {bench.placed.device.type}")
    packs = read_packs(bench, max(1, wish.steps))
    buffers = bench.prepare(packs[0])
    store = stack.enter_context(TensorStore(memory_gib=wish.memory_gib))
    recording = Recording(store=store)
    run_side(bench, packs, recording, wish, recording=recording, overrides=overrides)
    del bench  # its memory is given back before the next one is built
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()
    return Record(recording=recording, packs=packs, buffers=buffers)


def _second_side(
    side: Side, config: Config | None, known: Record, wish: Wish, say: Say
) -> Comparison:
    bounds = Bounds(rtol=wish.rtol)
    recording = known.recording
    if config is None:
        raise ConfigError(
            f"{side} was asked for as side B, and is a record. Give it as side A: B is run and "
            "compared with it."
        )
    bench = build_bench(side, config)
    _require_shapes(recording, bench)
    say(f"B: {side} on {bench.placed.device.type}")
    bench.take_buffers(known.buffers)
    comparison = Comparison(recording, bounds=bounds, compute_dtype=bench.placed.compute_dtype)
    run_side(bench, known.packs, comparison, wish, recording=recording)
    return comparison


def _write(path: Path, known: Record, side: Side, say: Say) -> None:
    if side.kind == "record":
        raise ConfigError(f"--record was asked for, and side A ({side}) is a record already.")
    write_record(path, known)
    say(f"record: {path}")


def _require_wish(known: Record, wish: Wish, side: Side) -> None:
    facts = known.recording.facts
    if wish.isolate and not facts.is_isolated:
        raise ConfigError(
            f"--isolate was asked for, and {side} was recorded without it. Record it with "
            "--isolate, or leave it out."
        )
    if wish.steps not in (0, len(facts.steps)):
        raise ConfigError(
            f"--steps {wish.steps} was asked for, and {side} was recorded with "
            f"{len(facts.steps)}. Give that number, or none."
        )


def _require_settings(known: Record, config: Config | None, side: Side) -> None:
    """Refuse a record of another configuration; what a side has set for itself is wanted."""
    if config is None or side.settings:
        return
    facts = known.recording.facts
    told = differing_settings(facts.settings, counted_settings(config))
    if told:
        raise ConfigError(
            f"The record is of another configuration ({'; '.join(told[:_SHOWN])}). Give the "
            f"overrides it was recorded with: {' '.join(facts.overrides) or 'none'}"
        )


def _require_shapes(recording: Recording, bench: Bench) -> None:
    a, b = recording.facts.shapes, bench.shapes()
    told = [f"{name} is on side A alone" for name in a if name not in b]
    told += [f"{name} is on side B alone" for name in b if name not in a]
    told += [
        f"{name} is {a[name]} on side A and {b[name]} on side B"
        for name in a
        if name in b and a[name] != b[name]
    ]
    if told:
        raise ConfigError(
            f"The two sides are other models: {'; '.join(told[:_SHOWN])}"
            f"{f' and {len(told) - _SHOWN} more' if len(told) > _SHOWN else ''}. Compare two of "
            "one configuration."
        )
