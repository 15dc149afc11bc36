"""Choose the next token of each row: the best one, or a draw from temperature, top-k and top-p.

Shape letters: B rows, C entries of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from mllm_npu.inference.options import GenerationOptions


def choose_tokens(
    scores_BC: Tensor,
    *,
    options: Sequence[GenerationOptions],
    generators: Sequence[Generator],
) -> list[int]:
    """Choose one token per row, from its own scores, options and generator alone.

    Args:
        scores_BC: logits, -inf for tokens that may not be chosen.
        options: of each row.
        generators: of each row, on the CPU so that a seed means the same on every device.

    Returns:
        The B chosen ids. The device is asked once.
    """
    if any(row_options.temperature > 0 for row_options in options):
        scores_BC = scores_BC.float().cpu()
    chosen: list[int] = scores_BC.argmax(dim=-1).tolist()
    for row, (row_options, generator) in enumerate(zip(options, generators, strict=True)):
        if row_options.temperature > 0:
            chances_C = chances(scores_BC[row], row_options)
            chosen[row] = int(torch.multinomial(chances_C, 1, generator=generator))
    return chosen


def chances(scores_C: Tensor, options: GenerationOptions) -> Tensor:
    """Probability of each token after temperature, top-k and top-p, float32 [C].

    The token that crosses ``top_p`` is kept, so at least one always remains.
    """
    chances_C = (scores_C / options.temperature).softmax(dim=-1)
    ordered_C, order_C = chances_C.sort(descending=True, stable=True)
    dropped_C = torch.zeros_like(order_C, dtype=torch.bool)
    if options.top_p < 1:
        dropped_C = ordered_C.cumsum(dim=-1) - ordered_C >= options.top_p
    if options.top_k:
        dropped_C[options.top_k :] = True
    kept_C = torch.zeros_like(chances_C).scatter(0, order_C, ordered_C.masked_fill(dropped_C, 0.0))
    return kept_C / kept_C.sum()
