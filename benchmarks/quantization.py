"""What fewer bytes of weights cost and give: memory, speed, scores and answers, for each way.

    python benchmarks/quantization.py --json

Answers and scores are those of the digits model that comes with the package, on held-out scans.
Speed is that of a decoding step of a language model of 512 x 8 layers with random weights, for one
request and for eight; the ways take turns in one process, by processor time on one thread. Ratios
above 1 are faster than float32 as torch keeps it; ``packed`` is float32 as the engine that serves
lays it out. int8 needs torchao.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from PIL import Image
from result_line import print_line
from torch import Tensor, nn

from mllm_npu.data.worlds.digit_scans import DigitScans
from mllm_npu.inference.engine import Engine
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.inference.packed_linear import pack_linear
from mllm_npu.model_folder import load_engine
from mllm_npu.models.language_model.huggingface import HuggingFaceLanguageModel
from mllm_npu.models.quantization import quantize_model, weights_bytes
from mllm_npu.processing.conversation import ask
from mllm_npu.shipped import SHIPPED_FOLDER

PLAIN, PACKED, MAIN = "float32", "packed", "int8"
SIZE = {
    "model_type": "llama",
    "hidden_size": 512,
    "intermediate_size": 1376,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "vocab_size": 731,
}
PROMPT, STEPS = 64, 8
ROWS = (1, 8)
OPTIONS = GenerationOptions(max_new_tokens=16)


class Digits(NamedTuple):
    """What the digits model says in one way."""

    size: int
    answers: list[str]
    right: float
    scores_TW: Tensor


class Whole(nn.Module):
    """A language model in the place that a whole model has for it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.language_model = HuggingFaceLanguageModel(config=SIZE)


def ask_digits(way: str, pictures: list[Image.Image], labels: list[str]) -> Digits:
    """Read held-out scans, and score words after a few."""
    engine, _ = load_engine(
        SHIPPED_FOLDER / "digits", "cpu", quantize=None if way == PLAIN else way
    )
    questions = [ask("Which digit is this?", [picture]) for picture in pictures]
    answers = [reply.text for reply in engine.reply_many(questions, OPTIONS)]
    right = sum(label in answer for label, answer in zip(labels, answers, strict=True))
    size = weights_bytes(engine.model)
    return Digits(size, answers, right / len(labels), score_words(engine))


@torch.inference_mode()
def score_words(engine: Engine) -> Tensor:
    """Scores of every word after each of a row, float32 [T, W]."""
    model = engine.model.language_model
    ids = torch.arange(3, 3 + PROMPT)
    hidden_TD = model(
        model.embed(ids), position_ids_T=torch.arange(PROMPT), sequence_ends=(PROMPT,)
    )
    return model.logits(hidden_TD).float()


def make_model(way: str) -> Whole:
    """The language model whose speed is measured."""
    whole = Whole().eval()
    if way == PACKED:
        pack_linear(whole)
    elif way != PLAIN:
        quantize_model(whole, way)
    return whole


@torch.inference_mode()
def decode_seconds(model: Any, rows: int) -> float:
    """Processor seconds of a decoding step, each of which scores the vocabulary."""
    cache = model.new_cache()
    ids = torch.arange(PROMPT).expand(rows, PROMPT)
    hidden = model.extend(model.embed(ids), cache)
    begin = time.process_time()
    for _ in range(STEPS):
        chosen = model.logits(hidden[:, -1]).argmax(-1)
        hidden = model.extend(model.embed(chosen[:, None]), cache)
    return (time.process_time() - begin) / STEPS


def measure_speed(models: Mapping[str, Any], repeats: int) -> dict[str, dict[int, float]]:
    """Milliseconds of a step by way and rows, medians of turns."""
    ways = list(models)
    found: dict[str, dict[int, float]] = {way: {} for way in ways}
    for rows in ROWS:
        for model in models.values():
            decode_seconds(model, rows)
        turns = [
            {way: decode_seconds(model, rows) for way, model in models.items()}
            for _ in range(repeats)
        ]
        for way in ways:
            found[way][rows] = 1000 * statistics.median(turn[way] for turn in turns)
    return found


def measure(repeats: int, num_scans: int) -> dict[str, Any]:
    """Every way against float32."""
    torch.set_num_threads(1)
    ways = ["bfloat16", "float16"]
    if importlib.util.find_spec("torchao") is not None:
        ways.append(MAIN)
    scans = DigitScans()
    chosen = scans.ids["test"][:num_scans]
    pictures = [Image.fromarray(scans.pixels[scan]).convert("RGB") for scan in chosen]
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    labels = [names[scans.digit(scan)] for scan in chosen]
    plain = ask_digits(PLAIN, pictures, labels)
    large = {way: make_model(way) for way in (PLAIN, PACKED, *ways)}
    speeds = measure_speed({way: whole.language_model for way, whole in large.items()}, repeats)
    each: dict[str, dict[str, float]] = {}
    for way in ways:
        found = ask_digits(way, pictures, labels)
        share = weights_bytes(large[way]) / weights_bytes(large[PLAIN])
        each[way] = compare(found, plain, speeds[way], speeds[PLAIN])
        each[way]["weights_ratio_512x8"] = round(share, 3)
    packed = {f"speed_ratio_{rows}": ratio(speeds, PACKED, rows) for rows in ROWS}
    return {
        **each.get(MAIN, {}),
        "ways": each,
        "packed": packed,
        "accuracy_float32": plain.right,
        "scores_float32": [round(float(end), 2) for end in plain.scores_TW.aminmax()],
        "scans": len(chosen),
        "step_ms": {way: {n: round(ms, 2) for n, ms in by.items()} for way, by in speeds.items()},
        "repeats": repeats,
    }


def ratio(speeds: Mapping[str, Mapping[int, float]], way: str, rows: int) -> float:
    """How many times as fast as plain float32."""
    return round(speeds[PLAIN][rows] / speeds[way][rows], 2)


def compare(
    found: Digits, plain: Digits, speed: Mapping[int, float], before: Mapping[int, float]
) -> dict[str, float]:
    """One way against float32."""
    pairs = zip(found.answers, plain.answers, strict=True)
    return {
        "weights_ratio": round(found.size / plain.size, 3),
        "speed_ratio": round(before[1] / speed[1], 2),
        "speed_ratio_8": round(before[8] / speed[8], 2),
        "max_logit_diff": round((found.scores_TW - plain.scores_TW).abs().max().item(), 4),
        "same_answers": round(sum(a == b for a, b in pairs) / len(plain.answers), 4),
        "accuracy": round(found.right, 4),
    }


def main() -> None:
    """Measure all ways that are there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--scans", type=int, default=360)
    parser.add_argument("--store", action="store_true", help="append to benchmarks/results")
    parser.add_argument("--json", action="store_true", help="JSON is all there is")
    given = parser.parse_args()
    measured = measure(given.repeats, given.scans)
    print_line("quantization", measured, store=given.store, file="quantization")


if __name__ == "__main__":
    main()
