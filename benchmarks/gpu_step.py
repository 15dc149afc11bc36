"""A training step of a 1B language model on one accelerator, packed, against padded rows.

    python benchmarks/gpu_step.py --json --store

Ours: a Llama of 1.1 B parameters (width 2048, 22 layers, 4 key heads), the vision encoder of
SigLIP-so400m's shape, frozen, an attention resampler to 64 tokens, one pack of 4096 tokens of
image-text samples of unequal length, bfloat16 by autocast, AdamW, random weights. The other side:
stock ``LlamaForCausalLM`` with flash-attention-2 where the package is installed, else sdpa, rows
padded to the longest sample of a batch, the same encoder, projector, samples and update. Both take
turns in one process; medians of rounds.

Keys: ``useful_tokens_per_second`` of both, ``speedup_over_padded`` (their ratio), ``mfu`` of both
from model FLOPs per part over the device's peak in bfloat16 (null where no peak is known),
``peak_gib``, the losses' difference. On a CPU it runs with small sizes and means nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from padded_step import PackedSide, PaddedSide, Place
from result_line import print_line

from mllm_npu.batch import Batch, tile_blocks
from mllm_npu.device.peaks import peak_flops
from mllm_npu.device.platform import pick_device
from mllm_npu.evaluate.machine import describe_machine
from mllm_npu.models.language_model.huggingface import HuggingFaceLanguageModel
from mllm_npu.models.mllm import GeneralizedMultimodalModel
from mllm_npu.models.projector.attention_resampler import AttentionResampler
from mllm_npu.models.vision_encoder.huggingface import HuggingFaceVisionEncoder
from mllm_npu.train.flops import measure_costs
from mllm_npu.train.objectives.mllm import MultimodalObjective

ROWS = 8
"""Samples stock Hugging Face takes at once."""


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


def measure(sizes: Sizes, device: torch.device, *, rounds: int, warm_up: int) -> dict[str, Any]:
    """Both sides in turns on the same packs."""
    has_flash = device.type == "cuda" and importlib.util.find_spec("flash_attn") is not None
    attention = "flash_attention_2" if has_flash else "sdpa"
    place = Place(device=device, compute_dtype=torch.bfloat16, attention=attention)
    model = build_model(sizes, device)
    padded = PaddedSide(model, trains_encoder=False, length=None, place=place, rows=ROWS)
    ours = PackedSide(model, trains_encoder=False, place=place)
    steps: dict[str, Callable[[Batch], float]] = {"ours": ours.step, "padded": padded.step}
    packs = [make_pack(sizes, seed) for seed in range(warm_up + rounds)]
    trainable = ["*", "!vision_encoder.*"]
    costs = measure_costs(MultimodalObjective(model=model, trainable=trainable))
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    difference = 0.0
    for number, pack in enumerate(packs):
        losses = {name: _timed(step, pack, seconds[name]) for name, step in steps.items()}
        if number == 0:
            difference = abs(losses["ours"] - losses["padded"])
    kept = packs[warm_up:]
    peak = peak_flops(device, torch.bfloat16)
    found: dict[str, Any] = {}
    for name, spent in seconds.items():
        rates = [pack.num_tokens / s for pack, s in zip(kept, spent[warm_up:], strict=True)]
        shares = [costs.of([p]).total / s for p, s in zip(kept, spent[warm_up:], strict=True)]
        ending = "" if name == "ours" else "_padded"
        found[f"useful_tokens_per_second{ending}"] = round(statistics.median(rates), 1)
        mfu = None if peak is None else round(statistics.median(shares) / peak.flops, 4)
        found[f"mfu{ending}"] = mfu
    ratio = [slow / fast for slow, fast in zip(seconds["padded"], seconds["ours"], strict=True)]
    return {
        "speedup_over_padded": round(statistics.median(ratio[warm_up:]), 3),
        **found,
        "attention_padded": attention,
        "loss_difference": difference,
        "parameters": sum(p.numel() for p in model.parameters()),
        "samples_per_pack": round(statistics.mean(len(p.sequence_ends) for p in packs), 1),
        "machine": describe_machine(device),
    }


def _timed(step: Callable[[Batch], float], pack: Batch, seconds: list[float]) -> float:
    begin = time.perf_counter()
    loss = step(pack)  # reads the loss, so the device has ended its work
    seconds.append(time.perf_counter() - begin)
    return loss


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
