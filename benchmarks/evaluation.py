"""What weighing many questions together gains over asking a model one by one.

    python benchmarks/evaluation.py --data data/benchmarks --json

MMLU, 5 shots, of a small Llama with random weights and a tokenizer trained on the solved questions.
Whole subjects are taken until there are enough questions. Without published files at ``--data``
questions of the same form and length are made up. Three ways, by turns, medians over rounds:

- ``weighed``: all questions together, what a subject's questions have in common once;
- ``weighed_alone``: one question after the other; the answers must be the same;
- ``generated``: one question after the other, the model writes a reply in which the letter is
  found, as the original evaluates. ``--new-tokens`` is the most it writes; 16 hold "The correct
  answer is (B)." in any tokenizer. A model with random weights never ends a reply by itself;
- ``generated_token``: the same with replies of a single token, the least that can be asked for.

Keys: ``speedup`` (questions per second of ``weighed`` over ``generated``), ``speedup_over_token``
(over ``generated_token``), ``speedup_over_alone``, ``cpu_gain`` (the same in processor seconds,
which other work on the machine changes less), ``forwards`` (calls of the decoder in one
round, which no other work changes), ``same_answers`` (of the first two), ``max_abs_diff`` of
their log-probabilities.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from image_tokens import SIZES
from result_line import print_line

from mllm_npu.errors import DataError
from mllm_npu.evaluate.choices import LETTERS
from mllm_npu.evaluate.task import Example
from mllm_npu.evaluate.tasks.mmlu import MMLU
from mllm_npu.evaluate.tasks.mmlu_subjects import SUBCATEGORIES
from mllm_npu.inference.engine import Engine
from mllm_npu.inference.events import Likelihood
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.models.language_model.huggingface import HuggingFaceLanguageModel
from mllm_npu.models.mllm import GeneralizedMultimodalModel
from mllm_npu.models.projector.attention_resampler import AttentionResampler
from mllm_npu.models.vision_encoder.huggingface import HuggingFaceVisionEncoder
from mllm_npu.processing.anyres import AnyResolution
from mllm_npu.processing.chat_template import ChatTemplate
from mllm_npu.processing.conversation import Text
from mllm_npu.processing.processor import Processor
from mllm_npu.processing.special_tokens import SpecialTokens, add_special_tokens
from mllm_npu.processing.tokenizer import train_tokenizer

TILE, MOST_TOKENS = 64, 2048
TEXT = (
    "the of a which is in law state energy cell number force system process theory value "
    "rate market court blood function group field element water pressure human social early modern"
)
"""Words of made-up questions."""


def made_up(folder: Path) -> Path:
    """Files of the published form with questions of about the published length."""
    rng, words = random.Random(0), TEXT.split()

    def sentence(least: int, most: int) -> str:
        return " ".join(rng.choice(words) for _ in range(rng.randint(least, most)))

    def rows(number: int) -> str:
        lines = (
            [sentence(15, 40), *(sentence(2, 10) for _ in range(4)), rng.choice(LETTERS[:4])]
            for _ in range(number)
        )
        return "".join(",".join(line) + "\n" for line in lines)

    for split, number in (("dev", 5), ("test", 100)):
        (folder / "mmlu" / split).mkdir(parents=True)
        for subject in SUBCATEGORIES:
            (folder / "mmlu" / split / f"{subject}_{split}.csv").write_text(rows(number))
    return folder


def find_examples(data: Path, by: str, options: GenerationOptions, number: int) -> list[Example]:
    """Whole subjects until there are enough questions, always the same ones."""
    examples = MMLU(data=data, by=by, options=options).examples()  # type: ignore[arg-type]
    subjects: dict[str, list[Example]] = {}
    for example in examples:
        subjects.setdefault(example.groups[-1], []).append(example)
    names = sorted(subjects)
    random.Random(0).shuffle(names)
    chosen: list[Example] = []
    for name in names:
        if len(chosen) >= number:
            break
        chosen += subjects[name]
    return chosen


def build_engine(texts: Sequence[str], size: str) -> Engine:
    """A small model with random weights and a tokenizer of its own."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(list(texts), vocab_size=4096)
    add_special_tokens(tokenizer, SpecialTokens(num_slots=4, num_locations=0))
    processor = Processor(
        tokenizer=tokenizer,
        any_resolution=AnyResolution(grids=["1x1"], tile_size=TILE, repeat_single_tile=False),
        chat_template=ChatTemplate(user_suffix="\n"),
        num_read_tokens=4,
        num_drawn_tokens=0,
        max_tokens=MOST_TOKENS,
    )
    config = {"model_type": "llama", "vocab_size": len(tokenizer), "num_attention_heads": 8}
    language_model = HuggingFaceLanguageModel(
        config=config | {"max_position_embeddings": MOST_TOKENS} | SIZES[size]
    )
    vision = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    vision |= {"image_size": TILE, "patch_size": 16, "intermediate_size": 128}
    model = GeneralizedMultimodalModel(
        language_model=language_model,
        vision_encoder=HuggingFaceVisionEncoder(
            config={"model_type": "siglip_vision_model", **vision}
        ),
        projector=AttentionResampler(input_dim=64, output_dim=language_model.width, num_queries=4),
    )
    return Engine(model=model, processor=processor, device="cpu")


def letters_of(found: dict[int, tuple[Likelihood, ...]]) -> list[int]:
    """Number of the likeliest choice of each question."""
    logprobs = [[each.logprob for each in found[number]] for number in sorted(found)]
    return [values.index(max(values)) for values in logprobs]


def measure(
    engine: Engine, weighed: Sequence[Example], written: Sequence[Example], *, rounds: int
) -> dict[str, Any]:
    """Questions per second of each way, and whether the first two say the same."""
    questions = [(example.conversation, example.choices) for example in weighed]
    found: dict[str, dict[int, tuple[Likelihood, ...]]] = {}

    def together() -> None:
        found["together"] = dict(engine.weigh(questions))

    def alone() -> None:
        found["alone"] = {
            number: next(engine.weigh([question]))[1] for number, question in enumerate(questions)
        }

    def generated() -> None:
        for example in written:
            engine.reply(example.conversation, example.options)

    def generated_token() -> None:
        for example in written:
            engine.reply(example.conversation, replace(example.options, max_new_tokens=1))

    ways: dict[str, Callable[[], None]] = {
        "weighed": together,
        "weighed_alone": alone,
        "generated": generated,
        "generated_token": generated_token,
    }
    list(engine.weigh(questions[:8]))
    engine.reply(written[0].conversation, written[0].options)
    decoder = engine.model.language_model.causal_lm.get_decoder()
    forwards: Counter[str] = Counter()
    taken: dict[str, list[float]] = {name: [] for name in ways}
    worked: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            counted = decoder.register_forward_pre_hook(
                lambda *_, name=name: forwards.update([name])
            )
            begun, before = time.perf_counter(), time.process_time()
            run()
            taken[name].append(time.perf_counter() - begun)
            worked[name].append(time.process_time() - before)
            counted.remove()
    rate = {name: len(questions) / statistics.median(taken[name]) for name in ways}
    cpu = {name: statistics.median(worked[name]) for name in ways}
    pairs = [
        (one.logprob, other.logprob)
        for number in range(len(questions))
        for one, other in zip(found["together"][number], found["alone"][number], strict=True)
    ]
    return {
        "speedup": round(rate["weighed"] / rate["generated"], 2),
        "speedup_over_token": round(rate["weighed"] / rate["generated_token"], 2),
        "speedup_over_alone": round(rate["weighed"] / rate["weighed_alone"], 2),
        "cpu_gain": {
            name: round(cpu[name] / cpu["weighed"], 2) for name in ways if name != "weighed"
        },
        "forwards": {name: forwards[name] // rounds for name in ways},
        "same_answers": letters_of(found["together"]) == letters_of(found["alone"]),
        "max_abs_diff": max(abs(one - other) for one, other in pairs),
        "questions_per_second": {name: round(value, 2) for name, value in rate.items()},
    }


def main() -> None:
    """Measure one model size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data/benchmarks"))
    parser.add_argument("--size", choices=tuple(SIZES), default="256x4")
    parser.add_argument("--questions", type=int, default=400, help="at least, of whole subjects")
    parser.add_argument("--new-tokens", type=int, default=16, help="most of a written reply")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--store", action="store_true", help="append to benchmarks/results")
    parser.add_argument("--json", action="store_true", help="JSON is all there is")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    options = GenerationOptions(max_new_tokens=given.new_tokens, images="forbid")
    with tempfile.TemporaryDirectory() as folder:
        data, source = given.data / "mmlu", "published files"
        try:
            weighed = find_examples(data, "likelihood", options, given.questions)
        except DataError:
            data, source = made_up(Path(folder)) / "mmlu", "made up"
            weighed = find_examples(data, "likelihood", options, given.questions)
        written = find_examples(data, "generation", options, given.questions)
    texts = {
        part.text
        for example in weighed
        for part in example.conversation.turns[0].parts
        if isinstance(part, Text)
    }
    engine = build_engine(sorted(texts), given.size)
    room = [e for e in weighed if engine.fits(e.conversation, 8)]
    kept = {example.name for example in room}
    measured = measure(engine, room, [e for e in written if e.name in kept], rounds=given.rounds)
    measured |= {
        "source": source,
        "questions": len(room),
        "mean_prompt_tokens": round(
            statistics.mean(
                engine.processor.encode(e.conversation, reply=True).num_tokens for e in room[::20]
            )
        ),
        "model": given.size,
        "new_tokens": given.new_tokens,
        "rounds": given.rounds,
        "threads": given.threads,
    }
    print_line("evaluation", measured, store=given.store, file="evaluation")


if __name__ == "__main__":
    main()
