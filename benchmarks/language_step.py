"""One training step of a language model on a pack of texts, as a share of what a core can multiply.

Shape letters: T tokens, S sequences, L tokens of a padded row.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from mllm_npu.batch import IGNORED_LABEL
from mllm_npu.models.language_model.huggingface import HuggingFaceLanguageModel
from mllm_npu.ops.cross_entropy import cross_entropy
from mllm_npu.train.optimizer import AdamW

LENGTHS = (690, 340, 520, 498)
"""Tokens of the sequences of the pack, 2048 in all."""
GEMM_SIZE = 2048
GEMM_REPEATS = 3
HEAD_WIDTH = 128
LARGEST_DIFFERENCE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Size of a Llama; by default about 110 million parameters, table and head being one.

    Args:
        width: of the hidden states, a multiple of 128.
        layers: decoder blocks.
        feed_forward: hidden width of a block's feed-forward.
        vocab_size: rows of the table.
    """

    width: int = 1024
    layers: int = 6
    feed_forward: int = 2816
    vocab_size: int = 32000

    @property
    def config(self) -> dict[str, Any]:
        """For Hugging Face."""
        return {
            "hidden_size": self.width,
            "intermediate_size": self.feed_forward,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.width // HEAD_WIDTH,
            "num_key_value_heads": self.width // HEAD_WIDTH,
            "vocab_size": self.vocab_size,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": True,
        }

    def flops(self, texts: Texts) -> float:
        """Model FLOPs of forward and backward: each weight of a matrix twice per token and pass.

        The head counts at the tokens that have a target; attention counts the half of the scores
        a causal row has; the backward pass is two more passes. Element-wise work, the optimizer,
        and whatever a way computes twice or beyond the diagonal count as nothing.
        """
        block = 4 * self.width**2 + 3 * self.width * self.feed_forward
        products = len(texts.ids) * self.layers * block
        products += len(texts.targets) * self.width * self.vocab_size
        seen = sum(size * (size + 1) // 2 for size in texts.lengths)
        products += 2 * seen * self.width * self.layers
        return 3.0 * 2.0 * products


class Texts:
    """A pack of random texts, every token but the first of a text being a target.

    Args:
        lengths: tokens of the texts.
        vocab_size: of the ids.
    """

    def __init__(self, lengths: tuple[int, ...], vocab_size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.lengths = lengths
        self.ends = tuple(itertools.accumulate(lengths))
        self.ids = torch.randint(0, vocab_size, (self.ends[-1],), generator=generator)
        self.position_ids = torch.cat([torch.arange(length) for length in lengths])
        self.target_positions = (
            (self.position_ids.roll(-1) > 0).nonzero().flatten()  # the next token is of this text
        )
        self.targets = self.ids[self.target_positions + 1]

    def rows(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Each text alone: ids, mask, labels, int64 [1, L]."""
        parts = [ids[None] for ids in self.ids.split(self.lengths)]
        return [(ids, torch.ones_like(ids), _unlearnt_first(ids)) for ids in parts]

    def padded(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """All texts as rows padded to the longest: ids, mask, labels, int64 [S, L]."""
        longest = max(self.lengths)
        parts = zip(*self.rows(), strict=True)
        values = (0, 0, IGNORED_LABEL)
        padded = [
            torch.cat([F.pad(row, (0, longest - row.shape[1]), value=value) for row in rows])
            for rows, value in zip(parts, values, strict=True)
        ]
        return [(padded[0], padded[1], padded[2])]


def _unlearnt_first(ids_1L: Tensor) -> Tensor:
    labels = ids_1L.clone()
    labels[:, 0] = IGNORED_LABEL
    return labels


Step = Callable[[torch.dtype], float]


def make_steps(shape: Shape, texts: Texts) -> dict[str, Step]:
    """Ways to do one step, all from the same weights; each gives its loss before the update."""
    torch.manual_seed(0)
    model = HuggingFaceLanguageModel(config={"model_type": "llama", **shape.config})
    optimizer = AdamW(lr=1e-4).build(dict(model.named_parameters()))

    def ours(dtype: torch.dtype) -> float:
        with _computing_in(dtype):
            hidden_TD = model(
                model.embed(texts.ids),
                position_ids_T=texts.position_ids,
                sequence_ends=texts.ends,
            )
            total, _ = cross_entropy(
                hidden_TD.index_select(0, texts.target_positions),
                texts.targets,
                model.logits,
                vocab_size=shape.vocab_size,
            )
            loss = total / len(texts.targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    state = model.causal_lm.state_dict()
    return {
        "ours": ours,
        "stock": _stock_step(shape, state, texts.rows(), len(texts.targets)),
        "stock_padded": _stock_step(shape, state, texts.padded(), len(texts.targets)),
    }


def _stock_step(
    shape: Shape,
    state: Mapping[str, Tensor],
    batches: list[tuple[Tensor, Tensor, Tensor]],
    num_targets: int,
) -> Step:
    config = LlamaConfig(**shape.config, use_cache=False)
    causal_lm = LlamaForCausalLM._from_config(config, attn_implementation="sdpa")
    causal_lm.load_state_dict(state)
    optimizer = AdamW(lr=1e-4).build(dict(causal_lm.named_parameters()))

    def step(dtype: torch.dtype) -> float:
        total = 0.0
        for ids, mask, labels in batches:
            with _computing_in(dtype):
                loss = causal_lm(
                    input_ids=ids,
                    attention_mask=None if mask.all() else mask,
                    labels=labels,
                    num_items_in_batch=num_targets,
                ).loss
            loss.backward()
            total += loss.item()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total

    return step


def _computing_in(dtype: torch.dtype) -> torch.autocast:
    """As the trainer computes: weights in float32, products in ``dtype``."""
    return torch.autocast("cpu", dtype, enabled=dtype is not torch.float32)


class MatrixRate:
    """How fast products of matrices are in a dtype: a square one and the model's own.

    Args:
        shape: of the model.
        num_tokens: rows of the model's own products.
        dtype: of the factors.
    """

    def __init__(self, shape: Shape, num_tokens: int, dtype: torch.dtype) -> None:
        sizes = (
            (GEMM_SIZE, GEMM_SIZE, GEMM_SIZE),
            (num_tokens, shape.width, shape.feed_forward),
            (num_tokens, shape.feed_forward, shape.width),
        )
        self.factors = [
            (torch.randn(rows, inner, dtype=dtype), torch.randn(columns, inner, dtype=dtype))
            for rows, inner, columns in sizes
        ]
        self.measure()

    def measure(self) -> list[float]:
        """FLOPs per second of each of them, now."""
        return [self._rate(left, right) for left, right in self.factors]

    @staticmethod
    def _rate(left: Tensor, right: Tensor) -> float:
        begin = time.process_time()
        for _ in range(GEMM_REPEATS):
            F.linear(left, right)
        spent = time.process_time() - begin
        return GEMM_REPEATS * 2.0 * left.numel() * len(right) / spent


def _best_rate(before: list[float], after: list[float]) -> float:
    """The fastest product around a step."""
    return max(map(statistics.mean, zip(before, after, strict=True)))


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def measure_language(shape: Shape, *, rounds: int, lengths: tuple[int, ...]) -> dict[str, float]:
    """Shares of the rate of matrix products, ways in turns, and how far their losses differ."""
    texts = Texts(lengths, shape.vocab_size)
    steps = make_steps(shape, texts)
    rates = {name: MatrixRate(shape, len(texts.ids), dtype) for name, dtype in DTYPES.items()}
    flops = shape.flops(texts)
    shares: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    differences = dict.fromkeys(DTYPES, 0.0)
    for number in range(rounds + 1):
        for name, dtype in DTYPES.items():
            losses = {}
            before = rates[name].measure()
            for way, step in steps.items():
                begin = time.process_time()
                losses[way] = step(dtype)
                spent = time.process_time() - begin
                after = rates[name].measure()
                if number:  # the first round warms up
                    key = f"{name}{way.removeprefix('ours').replace('stock', '_stock')}"
                    shares.setdefault(key, []).append(flops / spent / _best_rate(before, after))
                    seconds.setdefault(key, []).append(spent)
                before = after
            # Later on the losses differ by what rounding makes of the first updates.
            if not number:
                differences[name] = max(losses.values()) - min(losses.values())
    if differences["fp32"] > LARGEST_DIFFERENCE:
        message = f"The ways differ by {differences['fp32']} in their loss; they must be equal."
        raise SystemExit(message)
    return {
        **{f"mfu_{key}": round(statistics.median(found), 3) for key, found in shares.items()},
        **{f"lm_seconds_{key}": round(statistics.median(f), 2) for key, f in seconds.items()},
        "lm_parameters": _count_parameters(shape),
        "lm_loss_difference_fp32": differences["fp32"],
        "lm_loss_difference_bf16": differences["bf16"],
    }


def _count_parameters(shape: Shape) -> int:
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**shape.config))
    return sum(parameter.numel() for parameter in model.parameters())
