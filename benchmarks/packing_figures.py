"""How full and how even planned packs are, beside those of first-fit-decreasing."""

from __future__ import annotations

import functools
import time
from typing import Any

import numpy as np
from caption_shards import TOKENS_PER_PACK

from mllm_npu.data.loader import PackedBatches
from mllm_npu.data.pack import Pack
from mllm_npu.data.source import SampleSource
from mllm_npu.processing.processor import Processor


def measure_packing(source: SampleSource, processor: Processor, planned: int) -> dict[str, float]:
    """How full packs are and how even, over many samples, beside first-fit-decreasing."""
    loader = PackedBatches(
        sources=[source],
        processor=processor,
        tokens_per_pack=TOKENS_PER_PACK,
        seed=1,
        samples_per_epoch=planned,
    )
    plan = loader.order.plan
    windows = [plan.window(0, number) for number in range(plan.num_windows(0))]
    tokens = np.array([count for window in windows for count in window.tokens])
    tiles = np.array([count for window in windows for count in window.tiles])
    begin = time.process_time()
    plan.window(0, 0)
    spent = time.process_time() - begin
    lengths = [_lengths_of(loader, pack) for window in windows for pack in window.packs]
    ffd_tokens, ffd_tiles = first_fit_decreasing(
        [pair for pairs in lengths for pair in pairs], TOKENS_PER_PACK, int(tiles.max())
    )
    return {
        "padding_fraction": round(1 - tokens.sum() / (len(tokens) * TOKENS_PER_PACK), 4),
        "tile_budget_cv": round(tiles.std() / tiles.mean(), 4),
        "padding_fraction_ffd": round(1 - sum(ffd_tokens) / (len(ffd_tokens) * TOKENS_PER_PACK), 4),
        "tile_budget_cv_ffd": round(float(np.std(ffd_tiles) / np.mean(ffd_tiles)), 4),
        "plan_us_per_sample": round(1e6 * spent / sum(map(len, windows[0].packs)), 1),
        "tiles_per_pack": round(float(tiles.mean()), 1),
    }


def _lengths_of(loader: PackedBatches, pack: Pack) -> list[tuple[int, int]]:
    """Tokens and tiles of each sample of a pack."""
    source = loader.sources[0]
    ends = np.cumsum(source.shard_sizes)
    found = []
    for pick in pack:
        shard = int(np.searchsorted(ends, pick.sample, side="right"))
        place = pick.sample - (int(ends[shard - 1]) if shard else 0)
        table, tokens, tiles = _measured(source, shard, loader.reader.processor)
        form = table.first[place] + pick.form
        found.append((int(tokens[form]), int(tiles[form])))
    return found


@functools.cache
def _measured(source: SampleSource, shard: int, processor: Processor) -> tuple[Any, Any, Any]:
    table = source.forms(shard, processor)
    resolution = processor.any_resolution
    return table, table.tokens(processor.length_rule, resolution), table.tiles(resolution)


def first_fit_decreasing(
    pairs: list[tuple[int, int]], budget: int, tile_budget: int
) -> tuple[list[int], list[int]]:
    """The textbook's packing with two budgets: tokens and tiles of each pack."""
    loads: list[list[int]] = []
    for tokens, tiles in sorted(pairs, reverse=True):
        place = next(
            (
                load
                for load in loads
                if load[0] + tokens <= budget and load[1] + tiles <= tile_budget
            ),
            None,
        )
        if place is None:
            loads.append(place := [0, 0])
        place[0] += tokens
        place[1] += tiles
    return [load[0] for load in loads], [load[1] for load in loads]
