"""Say which tokens of which requests the next step takes: those that write first, then prompts."""

from __future__ import annotations

from collections.abc import Sequence

from mllm_npu.inference.live_row import LiveRow
from mllm_npu.models.language_model.slots import Span


def plan_step(
    rows: Sequence[LiveRow], *, tokens_per_step: int, prefill_chunk: int
) -> list[tuple[LiveRow, Span]]:
    """Choose the new tokens of a step.

    Every request that writes gets its one token. What is left of the step goes to longer pieces,
    pictures and prompts, the oldest request first; a prompt gets at most a chunk, so that one that
    is long lets others pass. Tokens that belong together, those of a picture, are never parted: the
    first piece of a step may be longer than what is left for it.

    Args:
        rows: requests by slot, each with tokens the model has not taken.
        tokens_per_step: about as many in all.
        prefill_chunk: about as many of one request.

    Returns:
        Requests and their new tokens, those with one token first, at least one.
    """
    plan: list[tuple[LiveRow, Span]] = []
    long: list[tuple[LiveRow, int]] = []
    for slot, row in enumerate(rows):
        if row.num_pending == 1:
            plan.append((row, _span(row, slot, row.fed + 1)))
        else:
            long.append((row, slot))
    left, is_first = tokens_per_step - len(plan), True
    for row, slot in sorted(long, key=lambda pair: pair[0].number):
        end = _find_end(row, min(left, prefill_chunk), must=is_first)
        if end > row.fed:
            plan.append((row, _span(row, slot, end)))
            left -= end - row.fed
            is_first = False
    return plan


def _find_end(row: LiveRow, most: int, *, must: bool) -> int:
    """Where a piece of a request ends: not inside a block."""
    end = min(row.num_tokens, row.fed + max(most, int(must)))
    for first, last in row.whole_blocks:
        if first < end < last:
            end = last if first <= row.fed and (must or last - row.fed <= most) else first
    return max(end, row.fed)


def _span(row: LiveRow, slot: int, end: int) -> Span:
    blocks = tuple(
        (first - row.fed, last - row.fed)
        for first, last in row.prompt_blocks
        if row.fed <= first and last <= end
    )
    return Span(slot=slot, start=row.fed, length=end - row.fed, blocks=blocks)
