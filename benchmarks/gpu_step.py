"""A training step of a 1B language model on one accelerator, packed, against padded rows.

    python benchmarks/gpu_step.py --json --store

Ours: a Llama of 1.1 B parameters (width 2048, 22 layers, 4 key heads), the vision encoder of
SigLIP-so400m's shape, frozen, an attention resampler to 64 tokens, one pack of 4096 tokens of
image-text samples of unequal length, bfloat16 by autocast, AdamW, random weights. The other side:
stock ``LlamaForCausalLM`` with flash-attention-2 where the package is installed, else sdpa, rows
padded to the longest sample of a batch, the same encoder, projector, samples and update. It takes
as many samples at once as make it fastest, which is tried first. Both take turns in one process;
medians of rounds.

Keys: ``useful_tokens_per_second`` of both, ``speedup_over_padded`` (median of the ratios of their
times), ``mfu`` of both from model FLOPs per part over the device's peak in bfloat16 (null where no
peak is known), ``step_gib`` of both (memory beyond what lies there between steps), ``attention``
(the ways ours was computed), the losses' difference. On a CPU it runs with small sizes and means
nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from padded_step import PackedSide, PaddedSide, Place
from result_line import print_line

from mllm_npu.batch import Batch, tile_blocks
from mllm_npu.device.memory import MemoryGauge
from mllm_npu.device.peaks import peak_flops
from mllm_npu.device.platform import pick_device
from mllm_npu.evaluate.machine import describe_machine
from mllm_npu.models.language_model.huggingface import HuggingFaceLanguageModel
from mllm_npu.models.mllm import GeneralizedMultimodalModel
from mllm_npu.models.projector.attention_resampler import AttentionResampler
from mllm_npu.models.vision_encoder.huggingface import HuggingFaceVisionEncoder
from mllm_npu.ops.ways import calls
from mllm_npu.train.flops import measure_costs
from mllm_npu.train.objectives.mllm import MultimodalObjective

ROWS = (4, 8, 16)
"""Samples stock Hugging Face may take at once."""
Step = Callable[[Batch], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Of the model and the pack.

    Args:
        language: keys of a Llama's config.
        vision: keys of a SigLIP's config.
        num_queries: tokens of a read tile.
        tokens: of a pack.
        lengths: shortest and longest text of a sample, picture not counted.
    """

    language: dict[str, Any]
    vision: dict[str, Any]
    num_queries: int
    tokens: int
    lengths: tuple[int, int]


BILLION = Sizes(
    language={
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "vocab_size": 32000,
        "max_position_embeddings": 4096,
    },
    vision={
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
    },
    num_queries=64,
    tokens=4096,
    lengths=(16, 700),
)
SMALL = Sizes(
    language={
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 500,
        "max_position_embeddings": 512,
    },
    vision={
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 8,
    },
    num_queries=4,
    tokens=256,
    lengths=(4, 40),
)


def build_model(sizes: Sizes, device: torch.device) -> GeneralizedMultimodalModel:
    """With random weights."""
    torch.manual_seed(0)
    with torch.device(device):
        language_model = HuggingFaceLanguageModel(config={"model_type": "llama", **sizes.language})
        vision_encoder = HuggingFaceVisionEncoder(
            config={"model_type": "siglip_vision_model", **sizes.vision}
        )
        projector = AttentionResampler(
            input_dim=vision_encoder.width,
            output_dim=language_model.width,
            num_queries=sizes.num_queries,
            num_heads=sizes.language["num_attention_heads"],
        )
        return GeneralizedMultimodalModel(
            language_model=language_model,
            vision_encoder=vision_encoder,
            projector=projector,
            patch_positions=True,
        )


def make_pack(sizes: Sizes, seed: int) -> Batch:
    """Samples of one picture and a text of random length, end to end, until the pack is full."""
    chance, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    lengths: list[int] = []
    while True:
        length = sizes.num_queries + chance.randint(*sizes.lengths)
        if sum(lengths) + length > sizes.tokens:
            break
        lengths.append(length)
    ends = tuple(itertools.accumulate(lengths))
    starts = torch.tensor((0, *ends[:-1]))
    first = torch.repeat_interleave(starts, torch.tensor(lengths))
    ids = torch.randint(0, sizes.language["vocab_size"], (ends[-1],), generator=generator)
    places = torch.arange(ends[-1]) - first
    targets = (places > sizes.num_queries).nonzero().flatten()
    slots = starts[:, None] + 1 + torch.arange(sizes.num_queries)
    edge, count = sizes.vision["image_size"], len(lengths)
    empty = torch.zeros(0, dtype=torch.int64)
    tiles = torch.randint(0, 256, (count, 3, edge, edge), generator=generator, dtype=torch.uint8)
    return Batch(
        input_ids=ids,
        position_ids=places,
        sequence_ends=ends,
        target_positions=targets - 1,
        targets=ids[targets],
        target_sequences=torch.repeat_interleave(torch.arange(count), torch.tensor(lengths))[
            targets
        ],
        tiles=tiles,
        tile_positions=torch.full((count, 2), 0.5),
        read_tiles=torch.arange(count),
        read_slots=slots,
        read_blocks=tile_blocks(slots),
        draw_tiles=empty,
        draw_slots=empty.view(0, 1),
        draw_weights=torch.zeros(0),
        draw_sequences=empty,
        sources=("pictures",) * count,
    )


@dataclass(slots=True)
class Spent:
    """What the steps of one side took."""

    seconds: list[float] = field(default_factory=list)
    gib: list[float] = field(default_factory=list)

    def take(self, step: Step, pack: Batch, gauge: MemoryGauge) -> None:
        """Make a step; it reads the loss, so the device has ended its work."""
        gauge.restart()
        before, begin = gauge.now_gib(), time.perf_counter()
        step(pack)
        self.seconds.append(time.perf_counter() - begin)
        self.gib.append(gauge.peak_gib() - before)


def choose_rows(padded: PaddedSide, packs: Sequence[Batch], gauge: MemoryGauge) -> int:
    """The number of `ROWS` with which stock Hugging Face takes the least time."""
    totals = {}
    for rows in ROWS:
        padded.rows, spent = rows, Spent()
        for pack in (packs[0], *packs):
            spent.take(padded.step, pack, gauge)
        totals[rows] = sum(spent.seconds[1:])
    return min(totals, key=totals.__getitem__)


def measure(sizes: Sizes, device: torch.device, *, rounds: int, warm_up: int) -> dict[str, Any]:
    """Both sides in turns on the same packs."""
    has_flash = device.type == "cuda" and importlib.util.find_spec("flash_attn") is not None
    place = Place(
        device=device,
        compute_dtype=torch.bfloat16,
        attention="flash_attention_2" if has_flash else "sdpa",
    )
    model, gauge = build_model(sizes, device), MemoryGauge(device)
    with device:
        padded = PaddedSide(model, trains_encoder=False, length=None, place=place)
    ours = PackedSide(model, trains_encoder=False, place=place)
    costs = measure_costs(MultimodalObjective(model=model, trainable=["*", "!vision_encoder.*"]))
    packs = [make_pack(sizes, seed) for seed in range(warm_up + rounds)]
    difference = abs(ours.step(packs[0]) - padded.step(packs[0]))
    padded.rows = choose_rows(padded, packs[:3], gauge)
    sides: dict[str, tuple[Step, Spent]] = {
        "": (ours.step, Spent()),
        "_padded": (padded.step, Spent()),
    }
    earlier = calls()
    for pack in packs:
        for step, spent in sides.values():
            spent.take(step, pack, gauge)
    kept, peak = packs[warm_up:], peak_flops(device, torch.bfloat16)
    found: dict[str, Any] = {}
    for ending, (_, spent) in sides.items():
        timed = list(zip(kept, spent.seconds[warm_up:], strict=True))
        rate = statistics.median(pack.num_tokens / s for pack, s in timed)
        flops = statistics.median(costs.of([pack]).total / s for pack, s in timed)
        found[f"useful_tokens_per_second{ending}"] = round(rate, 1)
        found[f"mfu{ending}"] = None if peak is None else round(flops / peak.flops, 4)
        found[f"step_gib{ending}"] = round(max(spent.gib[warm_up:]), 2)
    both = zip(sides["_padded"][1].seconds, sides[""][1].seconds, strict=True)
    ratios = [slow / fast for slow, fast in both]
    ways = sorted(way for op, way in calls() - earlier if op == "packed_attention")
    return {
        "speedup_over_padded": round(statistics.median(ratios[warm_up:]), 3),
        **found,
        "attention": ways,
        "attention_padded": place.attention,
        "rows_padded": padded.rows,
        "loss_difference": difference,
        "parameters": sum(p.numel() for p in model.parameters()),
        "samples_per_pack": round(statistics.mean(len(p.sequence_ends) for p in packs), 1),
        "machine": {**describe_machine(device), **_name(device)},
    }


def _name(device: torch.device) -> dict[str, str]:
    if device.type == "cpu":
        return {}
    return {"accelerator": str(torch.get_device_module(device).get_device_name())}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="auto", help="auto, npu, cuda or cpu")
    parser.add_argument("--small", action="store_true", help="sizes for a trial on a CPU")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--store", action="store_true", help="append to benchmarks/results")
    parser.add_argument("--json", action="store_true", help="JSON is all there is")
    asked = parser.parse_args()
    device = pick_device(asked.device)
    if device.type == "cpu" and not asked.small:
        parser.error("There is no accelerator here. Give --small for a trial of the script itself.")
    sizes = SMALL if asked.small else BILLION
    measured = measure(sizes, device, rounds=asked.rounds, warm_up=asked.warm_up)
    print_line("gpu_step", measured, store=asked.store, file="gpu_step")


if __name__ == "__main__":
    main()
