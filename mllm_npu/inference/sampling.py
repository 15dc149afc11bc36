"""Choose the next token of every row in one go: the best one, or a draw from what is kept.

Shape letters: B rows, C entries of the vocabulary, L tokens that were read or written, N tokens
that are told beside the chosen one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from mllm_npu.device.transfer import pick_rows, to_device
from mllm_npu.inference.options import GenerationOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A chosen token.

    Args:
        token_id: of it.
        logprob: how likely it was, where that was asked for.
        top: id and logarithm of the probability of the likeliest tokens.
    """

    token_id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


def choose_tokens(
    scores_BC: Tensor,
    *,
    options: Sequence[GenerationOptions],
    generators: Sequence[Generator],
    histories: Sequence[Sequence[int]] = (),
) -> list[Chosen]:
    """Choose one token per row, from its own scores, options, generator and history alone.

    Args:
        scores_BC: logits, -inf for tokens that may not be chosen.
        options: of each row.
        generators: of each row, on the CPU so that a seed means the same on every device.
        histories: ids each row has read and written; needed where repetition is penalised.

    Returns:
        The B chosen tokens. The device is asked once.
    """
    scores_BC = scores_BC.float()
    weighed_BC = penalise(scores_BC, options, histories)
    chosen_B = weighed_BC.argmax(dim=-1)
    hot = [row for row, wish in enumerate(options) if wish.temperature > 0]
    if hot:
        wishes = [options[row] for row in hot]
        drawn_B = draw(
            chances(pick_rows(weighed_BC, hot), wishes), [generators[row] for row in hot]
        )
        places = to_device(torch.tensor(hot, device="cpu"), chosen_B.device)
        chosen_B = chosen_B.index_copy(0, places, drawn_B)
    if all(wish.logprobs is None for wish in options):
        return [Chosen(token_id=number) for number in chosen_B.tolist()]
    return _tell(scores_BC, chosen_B, options)


def penalise(
    scores_BC: Tensor, options: Sequence[GenerationOptions], histories: Sequence[Sequence[int]]
) -> Tensor:
    """Make tokens of a row's history less likely where it asks for it, float [B, C].

    Source: CTRL (Keskar et al. 2019), as transformers computes it.
    """
    rows = [row for row, wish in enumerate(options) if wish.repetition_penalty != 1]
    seen = [sorted(set(histories[row])) if histories else [] for row in rows]
    rows = [row for row, ids in zip(rows, seen, strict=True) if ids]
    seen = [ids for ids in seen if ids]
    if not rows:
        return scores_BC
    longest = max(map(len, seen))
    padded = [ids + ids[:1] * (longest - len(ids)) for ids in seen]
    device = scores_BC.device
    ids_BL = to_device(torch.tensor(padded, device="cpu"), device)
    penalty_B1 = _column([options[row].repetition_penalty for row in rows], device)
    own_BC = pick_rows(scores_BC, rows)
    old_BL = own_BC.gather(1, ids_BL)
    new_BL = torch.where(old_BL > 0, old_BL / penalty_B1, old_BL * penalty_B1)
    places = to_device(torch.tensor(rows, device="cpu"), device)
    return scores_BC.index_copy(0, places, own_BC.scatter(1, ids_BL, new_BL))


def chances(scores_BC: Tensor, options: Sequence[GenerationOptions]) -> Tensor:
    """Probability of each token after temperature, top-k, top-p and min-p, float32 [B, C].

    Each limit looks at the chances after temperature alone. The token that crosses ``top_p`` is
    kept, so at least one always remains.
    """
    device = scores_BC.device
    heat_B1 = _column([wish.temperature for wish in options], device)
    chances_BC = (scores_BC / heat_B1).softmax(dim=-1)
    kept_BC = chances_BC
    if any(wish.min_p for wish in options):
        least_B1 = _column([wish.min_p for wish in options], device)
        rare_BC = chances_BC < least_B1 * chances_BC.amax(-1, keepdim=True)
        kept_BC = kept_BC.masked_fill(rare_BC, 0.0)
    rows = [row for row, wish in enumerate(options) if wish.top_k or wish.top_p < 1]
    if rows:
        late_BC = _is_late(pick_rows(chances_BC, rows), [options[row] for row in rows])
        cut_BC = pick_rows(kept_BC, rows).masked_fill(late_BC, 0.0)
        kept_BC = kept_BC.index_copy(0, to_device(torch.tensor(rows, device="cpu"), device), cut_BC)
    return kept_BC / kept_BC.sum(-1, keepdim=True)


def draw(chances_BC: Tensor, generators: Sequence[Generator]) -> Tensor:
    """Draw a token per row from its own generator, int64 [B]."""
    drawn = torch.cat([torch.rand(1, generator=own) for own in generators])
    ends_BC = chances_BC.cumsum(-1)
    aims_B = to_device(drawn, chances_BC.device) * ends_BC[:, -1]
    return (ends_BC <= aims_B[:, None]).sum(-1).clamp(max=chances_BC.shape[1] - 1)


def _is_late(chances_BC: Tensor, options: Sequence[GenerationOptions]) -> Tensor:
    """Which tokens come after ``top_k`` others, or after ``top_p`` of the chances, bool [B, C]."""
    device, num_entries = chances_BC.device, chances_BC.shape[1]
    ordered_BC, order_BC = chances_BC.sort(descending=True, stable=True)
    most_B1 = _column([float(wish.top_k or num_entries) for wish in options], device)
    share_B1 = _column([wish.top_p if wish.top_p < 1 else 2.0 for wish in options], device)
    late_BC = torch.arange(num_entries, device=device) >= most_B1
    late_BC = late_BC | (ordered_BC.cumsum(-1) - ordered_BC >= share_B1)
    return torch.zeros_like(late_BC).scatter(1, order_BC, late_BC)


def _tell(
    scores_BC: Tensor, chosen_B: Tensor, options: Sequence[GenerationOptions]
) -> list[Chosen]:
    """Chosen tokens with probabilities, brought to the host as one tensor."""
    logprobs_BC = scores_BC.log_softmax(-1)
    most = max(wish.logprobs or 0 for wish in options)
    top = logprobs_BC.topk(min(most, scores_BC.shape[1]), -1)
    own_B1 = logprobs_BC.gather(1, chosen_B[:, None])
    numbers = torch.cat([own_B1, top.values], 1).view(torch.int32)
    whole = torch.cat([chosen_B[:, None].int(), top.indices.int(), numbers], 1).cpu()
    num_ids = 1 + top.indices.shape[1]
    ids = whole[:, :num_ids].tolist()
    values = whole[:, num_ids:].contiguous().view(torch.float32).tolist()
    return [
        Chosen(token_id=own_ids[0])
        if wish.logprobs is None
        else Chosen(
            token_id=own_ids[0],
            logprob=own_values[0],
            top=tuple(
                pair
                for pair in zip(own_ids[1:], own_values[1:], strict=True)
                if pair[1] > -math.inf
            )[: wish.logprobs],
        )
        for wish, own_ids, own_values in zip(options, ids, values, strict=True)
    ]


def _column(values: Sequence[float], device: torch.device) -> Tensor:
    return to_device(torch.tensor(values, dtype=torch.float32, device="cpu"), device)[:, None]
