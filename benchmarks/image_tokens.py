"""How much faster the 64 forced tokens of a drawn picture are in one forward than one by one.

    python benchmarks/image_tokens.py --json

The model has the sizes 256 x 4 layers with random weights; the prompt has 15 tokens and ends with
``<img>``. Compared in one run, on one thread, in turns, by processor time:

- ``default``: transformers' ``generate`` with a logits processor that forces the slots, 120 new
  tokens, hidden states returned: the way of the original, with its default length;
- ``65_steps``: the same, stopped at ``</img>``;
- ``own_steps``: 65 forwards of our language model on its cache, without ``generate`` around them;
- ``one_forward``: ours, prompt and the whole block in one forward, as the engine does it.

Every way ends with the output projector; the features must agree.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from result_line import print_line
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, LogitsProcessor, LogitsProcessorList

from mllm_npu.models.language_model.huggingface import HuggingFaceLanguageModel
from mllm_npu.models.projector.attention_resampler import AttentionResampler

PROMPT, SLOTS, DEFAULT_TOKENS = 15, 64, 120
SIZES = {
    "256x4": {"hidden_size": 256, "num_hidden_layers": 4, "intermediate_size": 688},
    "512x8": {"hidden_size": 512, "num_hidden_layers": 8, "intermediate_size": 1376},
}
VOCABULARY = 731


class ForcedSlots(LogitsProcessor):
    """Lets only the next token of the block pass while the block is not complete."""

    def __init__(self, prompt_length: int, block: Sequence[int]) -> None:
        self.prompt_length, self.block = prompt_length, block

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Scores with everything but the next slot at -inf, float [1, W]."""
        place = input_ids.shape[1] - self.prompt_length
        if place >= len(self.block):
            return scores
        forced = torch.full_like(scores, -torch.inf)
        forced[:, self.block[place]] = 0
        return forced


class Bench:
    """One language model and output projector, and the ways to get a picture's features.

    Args:
        size: a key of SIZES.
    """

    def __init__(self, size: str) -> None:
        torch.manual_seed(0)
        config = {"vocab_size": VOCABULARY, "num_attention_heads": 8} | SIZES[size]
        self.language_model = HuggingFaceLanguageModel(
            config={"model_type": "llama", **config}
        ).eval()
        self.stock = LlamaForCausalLM(LlamaConfig(**config)).eval()
        self.stock.load_state_dict(self.language_model.causal_lm.state_dict())
        width = self.language_model.width
        self.projector = AttentionResampler(
            input_dim=width, output_dim=128, num_queries=SLOTS, num_heads=4
        ).eval()
        self.prompt = torch.randint(0, VOCABULARY, (1, PROMPT))
        self.block = torch.randperm(VOCABULARY)[None, : SLOTS + 1]

    def generate(self, num_tokens: int) -> Tensor:
        """Features by transformers' ``generate``."""
        done = self.stock.generate(
            self.prompt,
            attention_mask=torch.ones_like(self.prompt),
            logits_processor=LogitsProcessorList([ForcedSlots(PROMPT, self.block[0].tolist())]),
            max_new_tokens=num_tokens,
            min_new_tokens=num_tokens,
            do_sample=False,
            output_hidden_states=True,
            return_dict_in_generate=True,
            pad_token_id=0,
        )
        # The state at a slot comes out of the step that is fed it.
        states = [step[-1] for step in done.hidden_states[1 : SLOTS + 1]]
        return self.projector(torch.cat(states, 1))

    def own_steps(self) -> Tensor:
        """Features from 65 forwards of our model, each of which also scores the vocabulary."""
        model = self.language_model
        cache = model.new_cache()
        hidden = model.extend(model.embed(self.prompt), cache)
        states = []
        for place in range(SLOTS + 1):
            model.logits(hidden[:, -1]).argmax(-1)
            hidden = model.extend(model.embed(self.block[:, place : place + 1]), cache)
            states.append(hidden)
        return self.projector(torch.cat(states[:SLOTS], 1))

    def one_forward(self) -> Tensor:
        """Features from one forward of prompt and block, which leaves a cache to go on from."""
        model = self.language_model
        tokens = torch.cat([self.prompt, self.block], 1)
        hidden = model.extend(model.embed(tokens), model.new_cache())
        model.logits(hidden[:, -1]).argmax(-1)
        return self.projector(hidden[:, PROMPT : PROMPT + SLOTS])


def processor_time(run: Callable[[], Tensor]) -> float:
    """Processor seconds of one run."""
    begin = time.process_time()
    run()
    return time.process_time() - begin


def measure(size: str, repeats: int) -> dict[str, float | str | int]:
    """Ratios of processor times, medians over repeats, and the largest difference of features."""
    torch.set_num_threads(1)
    bench = Bench(size)
    ways: dict[str, Callable[[], Tensor]] = {
        "default": lambda: bench.generate(DEFAULT_TOKENS),
        "65_steps": lambda: bench.generate(SLOTS + 1),
        "own_steps": bench.own_steps,
        "one_forward": bench.one_forward,
    }
    with torch.inference_mode():
        difference = (ways["65_steps"]() - ways["one_forward"]()).abs().max().item()
        for run in ways.values():
            run()
        rounds = [{name: processor_time(run) for name, run in ways.items()} for _ in range(repeats)]
    seconds = {name: statistics.median(turn[name] for turn in rounds) for name in ways}
    return {
        "speedup_vs_65_steps": round(seconds["65_steps"] / seconds["one_forward"], 1),
        "speedup_vs_default": round(seconds["default"] / seconds["one_forward"], 1),
        "max_abs_diff": difference,
        "speedup_vs_own_steps": round(seconds["own_steps"] / seconds["one_forward"], 1),
        "model": size,
        "repeats": repeats,
        "cpu_ms": {name: round(1000 * value, 1) for name, value in seconds.items()},  # type: ignore[dict-item]
    }


def main() -> None:
    """Measure one model size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", choices=list(SIZES), default="256x4")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--store", action="store_true", help="append to benchmarks/results")
    parser.add_argument("--json", action="store_true", help="JSON is all there is")
    given = parser.parse_args()
    measured = measure(given.size, given.repeats)
    print_line("image_tokens", measured, store=given.store, file="image_tokens")


if __name__ == "__main__":
    main()
