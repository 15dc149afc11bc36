"""What answering many requests at once gains over one at a time, for text and for drawing.

    python benchmarks/serving.py --json

Llama 512 x 8 layers with a small ViT, random weights, on as many threads as the machine has cores.
64 questions of unequal length, every second one with a picture of its own, are answered greedily:

- ``8``: 8 callers at once, each with one request after the other; they begin apart by an eighth of
  the time of a request, so that the engine is measured as it runs and not as it starts;
- ``1``: one caller, the same engine;
- ``hf``: transformers' ``generate``, one request after the other, on the same weights. Its pictures
  are encoded by our encoder, which is counted.

All of them must say the same. The time to the first token is that of the same runs, from asking to
the model's choice. No prompt comes twice, and the memory of prompts is off.

Drawing, 8 pictures: ``image_tokens`` compares the language model's part, all prompts and slots in
one forward, with 66 forced steps of ``generate`` for one picture after the other, as the original
does it; ``image_total`` adds the image decoder, ours in one batch and the original's one by one.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from result_line import print_line
from serving_parts import Bench, Request, answer_live, make_drawings, make_requests
from torch import Generator, Tensor


def seconds_of(run: Callable[[], object]) -> float:
    """Wall seconds of one run."""
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def measure_text(bench: Bench, requests: Sequence[Request], *, rounds: int) -> dict[str, Any]:
    """Tokens per second of each way, medians over rounds, and times to the first token."""
    rates: dict[str, list[float]] = {"8": [], "1": [], "hf": []}
    first: dict[str, list[float]] = {"8": [], "1": []}
    texts: list[list[str]] = []
    batches: list[int] = []
    with bench.engine(max_slots=8) as engine:
        warm = answer_live(engine, requests[:4], at_once=1)
        bench.stock_texts(requests[:2])
        apart = warm.seconds / len(warm.texts) / 8
        for _ in range(rounds):
            together = answer_live(engine, requests, at_once=8, apart=apart)
            batches += engine.stats().batch_sizes
            ways = {
                "8": together,
                "1": answer_live(engine, requests, at_once=1),
                "hf": bench.stock_texts(requests),
            }
            for name, answers in ways.items():
                rates[name].append(answers.num_tokens / answers.seconds)
                texts.append(answers.texts)
                if name in first:
                    first[name] += answers.first
    rate = {name: statistics.median(values) for name, values in rates.items()}
    lone, late = (statistics.quantiles(first[name], n=20)[-1] for name in ("1", "8"))
    return {
        "throughput_gain_8": round(rate["8"] / rate["1"], 2),
        "gain_over_hf": round(rate["8"] / rate["hf"], 2),
        "ttft_ms_lone": round(1000 * statistics.median(first["1"]), 1),
        "ttft_p95_ms_lone": round(1000 * lone, 1),
        "ttft_p95_ms_at_8": round(1000 * late, 1),
        "ttft_p95_ratio_at_8": round(late / lone, 2),
        "identical_outputs": all(one == texts[0] for one in texts),
        "tokens_per_second": {name: round(value, 1) for name, value in rate.items()},
        "mean_batch_at_8": round(statistics.mean(batches), 2),
    }


def measure_drawing(bench: Bench, wishes: Sequence[Request], *, rounds: int) -> dict[str, Any]:
    """Gains of drawing all at once over one after the other, and how far features differ."""
    options = wishes[0].options

    def draw(features_GPV: Tensor, numbers: Sequence[int]) -> Tensor:
        return bench.model.draw(
            features_GPV,
            steps=options.image_steps,
            guidance=options.guidance,
            generator=[Generator().manual_seed(number) for number in numbers],
        )

    def one_by_one() -> None:
        for number, wish in enumerate(wishes):
            draw(bench.stock_features(wish), [number])

    ways: dict[str, Callable[[], object]] = {
        "tokens": lambda: bench.slot_features(wishes),
        "tokens_original": lambda: [bench.stock_features(wish) for wish in wishes],
        "total_original": one_by_one,
    }
    with bench.engine(max_slots=len(wishes)) as engine:
        ways["total"] = lambda: answer_live(engine, wishes, at_once=len(wishes))
        ours = bench.slot_features(wishes)
        theirs = torch.cat([bench.stock_features(wish) for wish in wishes])
        ways["total"]()
        taken = {name: [seconds_of(run) for _ in range(rounds)] for name, run in ways.items()}
    seconds = {name: statistics.median(values) for name, values in taken.items()}
    return {
        "image_tokens_gain_8": round(seconds["tokens_original"] / seconds["tokens"], 1),
        "image_total_gain_8": round(seconds["total_original"] / seconds["total"], 2),
        "image_features_max_abs_diff": (ours - theirs).abs().max().item(),
        "image_ms": {name: round(1000 * value, 1) for name, value in seconds.items()},
    }


def main() -> None:
    """Measure one model size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", choices=("256x4", "512x8"), default="512x8")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=96, help="most of a reply")
    parser.add_argument("--image-steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--store", action="store_true", help="append to benchmarks/results")
    parser.add_argument("--json", action="store_true", help="JSON is all there is")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    bench = Bench(given.size)
    requests = make_requests(given.requests, seed=0, most_tokens=given.tokens)
    with torch.inference_mode():
        measured = measure_text(bench, requests, rounds=given.rounds)
        wishes = make_drawings(8, steps=given.image_steps)
        measured |= measure_drawing(bench, wishes, rounds=given.rounds)
    measured |= {"model": given.size, "requests": given.requests, "rounds": given.rounds}
    print_line("serving", {**measured, "threads": given.threads}, store=given.store, file="serving")


if __name__ == "__main__":
    main()
