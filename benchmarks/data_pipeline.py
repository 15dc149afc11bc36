"""How fast captions and texts come as packed batches, how full those are, and what a plan costs.

    python benchmarks/data_pipeline.py --json

One process, one thread, processor seconds. The shards are made from a folder of photos, resized to
640x480; the processor is the published one (12 grids, base 448, 64 tokens, a tenth read, the rest
drawn), with torch's resize. Compared in one run, pack by pack in turns:

- ours: rows, conversations, tokens, tiles, collate;
- the floor: the same pictures decoded by simplejpeg and resized by torch to the same tiles, kept
  until the pack is done, and nothing else;
- webdataset and megatron-energon on the same shards with the same processor, shuffled in a buffer
  and filled up to the same budget. ``*_ratio`` has each library's own Pillow decoder, as their
  documentation shows it; ``*_ratio_same_decoder`` gives them ours.
"""

from __future__ import annotations

import argparse
import functools
import gc
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import simplejpeg
import torch
from caption_shards import (
    READ_SHARE,
    TILE,
    TOKENS_PER_PACK,
    build_processor,
    make_captions,
    make_texts,
)
from other_loaders import prepare_energon, read_energon, read_webdataset
from packing_figures import measure_packing
from result_line import print_line
from torch.nn import functional as F

from mllm_npu.batch import Batch
from mllm_npu.data.loader import PackedBatches
from mllm_npu.data.pack import Pack
from mllm_npu.data.source import Source
from mllm_npu.data.tasks.caption import Caption
from mllm_npu.data.tasks.pure_text import PureText
from mllm_npu.device.process import tune_process
from mllm_npu.processing.processor import Processor

PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "photos"


class Captions:
    """Our loader over the caption shards, and the floor for each of its packs.

    Args:
        folder: of the shards.
        processor: of the samples.
    """

    def __init__(self, folder: Path, processor: Processor) -> None:
        task = Caption(draw_share=1 - READ_SHARE)
        source = Source(name="captions", shards=f"{folder}/captions-*.tar", task=task)
        self.processor = processor
        self.source, self.task = source, task
        self.loader = PackedBatches(
            sources=[source], processor=processor, tokens_per_pack=TOKENS_PER_PACK, seed=0
        )
        self.packs = self.loader.order.epoch(0)

    def read(self, pack: Pack) -> Batch:
        """A pack as the trainer gets it."""
        read = self.loader.reader[pack]
        if read.batch is None:
            raise SystemExit(read.failure)
        return read.batch

    def fetch(self, pack: Pack) -> list[tuple[bytes, bool]]:
        """Encoded pictures of a pack, and which of them are read."""
        return [(self.source.row(pick.sample).members["jpg"], pick.form == 0) for pick in pack]

    def decode_and_resize(self, fetched: list[tuple[bytes, bool]]) -> list[torch.Tensor]:
        """The floor: nothing but the pixels."""
        tiles = []
        for data, is_read in fetched:
            pixels = torch.from_numpy(simplejpeg.decode_jpeg(data))[None].permute(0, 3, 1, 2)
            if is_read:
                height, width = pixels.shape[-2:]
                columns, rows = self.processor.any_resolution.choose(width, height)
                tiles.append(_resize(pixels, (rows * TILE, columns * TILE)))
            tiles.append(_resize(pixels, (TILE, TILE)))
        return tiles


def _resize(pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(pixels, size=size, mode="bicubic", antialias=True)


def processor_time(run: Callable[[], Any]) -> float:
    """Processor seconds of one run."""
    begin = time.process_time()
    run()
    return time.process_time() - begin


def measure_captions(captions: Captions, folder: Path, rounds: int) -> dict[str, float]:
    """Rates of ours, of the floor and of the libraries, pack by pack in turns."""
    others = _open_others(captions, folder)
    seconds = dict.fromkeys(("ours", "floor", *others), 0.0)
    samples = dict.fromkeys(seconds, 0)
    packs = captions.packs[:-1]
    for pack in itertools.chain.from_iterable([packs] * rounds):
        fetched = captions.fetch(pack)
        seconds["floor"] += processor_time(lambda: captions.decode_and_resize(fetched))  # noqa: B023
        seconds["ours"] += processor_time(lambda: captions.read(pack))  # noqa: B023
        samples["ours"] += len(pack)
        samples["floor"] += len(pack)
        for name, batches in others.items():
            begin = time.process_time()
            batch = next(batches)
            seconds[name] += time.process_time() - begin
            samples[name] += sum(map(bool, batch.keys))
    cost = {name: seconds[name] / samples[name] for name in seconds}
    ratios = {name: round(cost[name] / cost["ours"], 2) for name in others}
    return {
        "samples_per_cpu_second": round(1 / cost["ours"], 1),
        "over_floor": round(cost["ours"] / cost["floor"], 3),
        **ratios,
        "floor_ms": round(1000 * cost["floor"], 3),
        "samples": samples["ours"],
    }


def _open_others(captions: Captions, folder: Path) -> dict[str, Iterator[Batch]]:
    shards = sorted(str(path) for path in folder.glob("captions-*.tar"))
    given = captions.processor, captions.task, TOKENS_PER_PACK

    def endless(read: Callable[[], Iterator[Batch]]) -> Iterator[Batch]:
        while True:
            yield from read()

    others = {}
    for own, ending in ((True, ""), (False, "_same_decoder")):
        others[f"webdataset_ratio{ending}"] = endless(
            lambda own=own: read_webdataset(shards, *given, own_decoder=own)  # type: ignore[misc]
        )
        others[f"energon_ratio{ending}"] = read_energon(folder, *given, own_decoder=own)
    for batches in others.values():
        next(batches)  # opens files, fills the buffer
    return others


def measure_exact(captions: Captions, folder: Path) -> dict[str, float]:
    """Rate with Pillow's resize, as released checkpoints were trained."""
    exact = Captions(folder, build_processor(exact=True))
    packs = exact.packs[: max(1, len(captions.packs) // 4)]
    spent = sum(processor_time(functools.partial(exact.read, pack)) for pack in packs)
    return {"samples_per_cpu_second_exact": round(sum(map(len, packs)) / spent, 1)}


def measure_texts(folder: Path, processor: Processor, seconds: float) -> dict[str, float]:
    """Rate of short texts, from the shard to the packed batch."""
    source = Source(name="texts", shards=f"{folder}/texts-*.tar", task=PureText())
    loader = PackedBatches(
        sources=[source], processor=processor, tokens_per_pack=TOKENS_PER_PACK, seed=0
    )
    next(loader)
    count = tokens = 0
    begin = time.process_time()
    while time.process_time() - begin < seconds:
        batch = next(loader)
        count += batch.num_samples
        tokens += batch.num_tokens
    spent = time.process_time() - begin
    return {
        "text_samples_per_second": round(count / spent),
        "text_tokens_per_sample": round(tokens / count, 1),
    }


PLAN = """
import json, sys, time
sys.path.insert(0, "benchmarks")
from caption_shards import build_processor
from simulated_source import SimulatedSource
from mllm_npu.data.plan import Plan
from mllm_npu.device.memory import peak_rss_gib

processor = build_processor()
before = peak_rss_gib()
begin = time.process_time()
source = SimulatedSource(num_shards=10_000, shard_size=10_000)
plan = Plan(sources=[source], processor=processor, tokens_per_pack=4096, seed=0)
first = plan.window(0, 0).packs[0]
until_first = time.process_time() - begin
begin = time.process_time()
plan.window(0, plan.find(0, 54_321_987))
print(json.dumps({
    "plan_seconds_1e8": round(until_first, 2),
    "plan_rss_gib_1e8": round(peak_rss_gib(), 3),
    "plan_rss_gib_before": round(before, 3),
    "resume_seconds_1e8": round(time.process_time() - begin, 2),
}))
"""


def measure_plan() -> dict[str, float]:
    """What a plan over 10^8 samples takes, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PLAN],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    return json.loads(done.stdout)


def measure(
    photos: Path, *, copies: int, rounds: int, texts: int, planned: int
) -> dict[str, float]:
    """All figures."""
    tune_process(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_captions(photos, folder, copies=copies)
        prepare_energon(folder)
        processor = build_processor()
        captions = Captions(folder, processor)
        captions.read(captions.packs[0])
        gc.collect()
        gc.freeze()
        figures = measure_captions(captions, folder, rounds)
        figures |= measure_exact(captions, folder)
        figures |= measure_packing(captions.source, processor, planned)
        make_texts(folder, count=texts)
        figures |= measure_texts(folder, processor, seconds=2.0 * rounds)
    return figures | measure_plan()


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="folder of JPEG pictures")
    parser.add_argument("--copies", type=int, default=6, help="rows made of each picture")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--planned", type=int, default=32768, help="samples that are packed")
    parser.add_argument("--store", action="store_true", help="append to benchmarks/results")
    parser.add_argument("--json", action="store_true", help="JSON is all there is")
    given = parser.parse_args()
    if not given.photos.is_dir():
        parser.error(f"{given.photos} is not there. Give a folder of photos with --photos.")
    measured = measure(
        given.photos,
        copies=given.copies,
        rounds=given.rounds,
        texts=given.texts,
        planned=given.planned,
    )
    print_line("data_pipeline", measured, store=given.store, file="data_pipeline")


if __name__ == "__main__":
    main()
