"""How much faster a training step is than on padded rows, and how near to the speed of products.

    python benchmarks/train_step.py --json

One process, one thread, processor seconds, allocator tuned, ways in turns, medians of rounds; a
round warms up first. A step is forward, backward and one AdamW update.

**Captions** (``speedup_*``, ``samples_*``): packs of the published caption mix (12 grids, 448
pixels, 64 tokens per tile, a tenth read, the rest drawn). Ours is a GeneralizedMultimodalModel: a
Llama of width 256 and 4 layers, a vision transformer of width 192 and 4 layers with patches of 14
pixels, an attention resampler. The other side is stock ``LlamaForCausalLM`` with
``attn_implementation="sdpa"``, Hugging Face's own loss on full logits and an attention mask; its
samples are padded to 600 tokens and run four at a time, as the original was measured. Its vision
encoder is the same stock ``SiglipVisionModel``, its projector a copy of ours. Both sides make one
update per pack, begin with equal weights, and their losses are compared in every step.

What is encoded is the same on both sides of every ratio but one:

- ``speedup_over_padded`` and ``speedup_over_padded_to_longest`` (rows padded only to the longest of
  four): the tiles that are read, which are all that the loss of a model that only reads depends on;
  the encoder is frozen, as in the published objectives;
- ``*_drawn_encoded``: also the tile of each drawn picture, on both sides. The original encodes
  it, and drops the other tiles of a drawn picture before its encoder;
- ``speedup_over_original``: padded rows with the drawn pictures' tiles as in the original, against
  ours without them;
- ``*_encoder_trained``: tiles that are read, and the encoder gets gradients.

**Utilisation** (``mfu_*``): a Llama of 110 M parameters on a pack of four texts, 2048 tokens, in
float32, and in bfloat16 as the trainer computes it (float32 weights, autocast). Model FLOPs (see
``Shape.flops``) over seconds, update included, as a share of the rate of the fastest of three
matrix products of that dtype, measured before and after each step. ``mfu_*_stock`` is stock
Hugging Face with one text after the other, its fastest way; ``mfu_*_stock_padded`` has rows padded
to the longest text. A deeper and narrower model of this size (``--width 768 --feed-forward 2048
--layers 12``) has more element-wise work per product.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from caption_shards import READ_SHARE, TOKENS_PER_PACK, build_processor, make_captions
from language_step import LENGTHS, Shape, measure_language
from padded_step import (
    PADDED_LENGTH,
    PackedSide,
    PaddedSide,
    build_model,
    with_read_tiles_only,
)
from result_line import print_line

from mllm_npu.batch import Batch
from mllm_npu.data.loader import PackedBatches
from mllm_npu.data.source import Source
from mllm_npu.data.tasks.caption import Caption
from mllm_npu.device.process import tune_process

PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "photos"
RATIOS = {
    "speedup_over_padded": ("padded", "ours"),
    "speedup_over_padded_to_longest": ("longest", "ours"),
    "speedup_over_padded_drawn_encoded": ("padded_drawn", "ours_drawn"),
    "speedup_over_original": ("padded_drawn", "ours"),
    "speedup_over_padded_encoder_trained": ("padded_trained", "ours_trained"),
}
LARGEST_DIFFERENCE = 1e-3


def read_packs(photos: Path, folder: Path, *, copies: int, tokens: int) -> Iterator[Batch]:
    """Packs of the caption mix in which pictures are read and drawn, without end."""
    make_captions(photos, folder, copies=copies)
    task = Caption(draw_share=1 - READ_SHARE)
    source = Source(name="captions", shards=f"{folder}/captions-*.tar", task=task)
    processor = build_processor()
    loader = PackedBatches(sources=[source], processor=processor, tokens_per_pack=tokens, seed=0)
    # A pack without one of both carries a blank sample, which padded rows would have to carry too.
    return (batch for batch in loader if all(batch.sources))


def make_steps(vocab_size: int) -> dict[str, Callable[[Batch], float]]:
    """The ways to do a step, each with a model of its own that begins with the same weights."""

    def ours(*, trains_encoder: bool = False) -> PackedSide:
        return PackedSide(build_model(vocab_size), trains_encoder=trains_encoder)

    def padded(*, length: int | None = PADDED_LENGTH, trains_encoder: bool = False) -> PaddedSide:
        return PaddedSide(build_model(vocab_size), trains_encoder=trains_encoder, length=length)

    return {
        "ours": ours().step,
        "padded": padded().step,
        "longest": padded(length=None).step,
        "ours_drawn": ours().step,
        "padded_drawn": padded().step,
        "ours_trained": ours(trains_encoder=True).step,
        "padded_trained": padded(trains_encoder=True).step,
    }


def measure_captions(packs: Iterator[Batch], vocab_size: int, rounds: int) -> dict[str, float]:
    """Ratios and rates over packs; every way does one step on each of them."""
    steps = make_steps(vocab_size)
    costs: dict[str, list[float]] = {name: [] for name in steps}
    difference = 0.0
    measured = list(itertools.islice(packs, rounds + 1))
    for number, pack in enumerate(measured):
        read = with_read_tiles_only(pack)
        losses = {}
        for name, step in steps.items():
            batch = pack if name.endswith("_drawn") else read
            begin = time.process_time()
            losses[name] = step(batch)
            spent = time.process_time() - begin
            if number:  # the first pack warms up
                costs[name].append(spent / pack.num_samples)
        for frozen in ("padded", "longest", "ours_drawn", "padded_drawn"):
            difference = max(difference, abs(losses[frozen] - losses["ours"]))
        difference = max(difference, abs(losses["padded_trained"] - losses["ours_trained"]))
        if difference > LARGEST_DIFFERENCE:
            message = f"The losses of the two sides differ by {difference}: {losses}."
            raise SystemExit(message)
    ratios = {key: _ratio(costs[slow], costs[fast]) for key, (slow, fast) in RATIOS.items()}
    rates = {
        f"samples_per_cpu_second{name.removeprefix('ours')}": 1 / statistics.median(costs[name])
        for name in ("ours", "ours_drawn", "ours_trained")
    }
    rates["samples_per_cpu_second_padded"] = 1 / statistics.median(costs["padded"])
    samples = sum(pack.num_samples for pack in measured)
    tokens = sum(pack.num_tokens for pack in measured) / samples
    return {
        **{key: round(value, 2) for key, value in (ratios | rates).items()},
        "loss_difference": difference,
        "tokens_per_sample": round(tokens, 1),
        "padding_of_600": round(1 - tokens / PADDED_LENGTH, 3),
        "read_tiles_per_sample": round(sum(len(p.read_tiles) for p in measured) / samples, 2),
        "tiles_per_sample": round(sum(len(p.tiles) for p in measured) / samples, 2),
    }


def _ratio(slow: list[float], fast: list[float]) -> float:
    """Median over packs of one way's cost over another's."""
    return statistics.median(one / other for one, other in zip(slow, fast, strict=True))


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="folder of JPEG pictures")
    parser.add_argument("--copies", type=int, default=1, help="rows made of each picture")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=TOKENS_PER_PACK, help="of a caption pack")
    parser.add_argument("--width", type=int, default=1024, help="of the language model")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--feed-forward", type=int, default=2816)
    parser.add_argument("--vocab", type=int, default=32000)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, help="of the texts")
    parser.add_argument("--store", action="store_true", help="append to benchmarks/results")
    parser.add_argument("--json", action="store_true", help="JSON is all there is")
    given = parser.parse_args()
    if not given.photos.is_dir():
        parser.error(f"{given.photos} is not there. Give a folder of photos with --photos.")
    tune_process(1)
    with tempfile.TemporaryDirectory() as name:
        packs = read_packs(given.photos, Path(name), copies=given.copies, tokens=given.tokens)
        vocab_size = len(build_processor().tokenizer)
        measured = measure_captions(packs, vocab_size, given.rounds)
    shape = Shape(
        width=given.width,
        layers=given.layers,
        feed_forward=given.feed_forward,
        vocab_size=given.vocab,
    )
    measured |= measure_language(shape, rounds=given.rounds, lengths=tuple(given.lengths))
    print_line("train_step", measured, store=given.store, file="train_step")


if __name__ == "__main__":
    main()
