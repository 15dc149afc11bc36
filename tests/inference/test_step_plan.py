"""Which tokens a step takes, on requests of which only the numbers matter."""

import pytest

from mllm_npu.inference.live_row import LiveRow
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.inference.step_plan import plan_step


def make_row(number, num_prompt, *, fed=0, blocks=(), draws=False):
    row = LiveRow(
        number=number,
        options=GenerationOptions(),
        room=100,
        seed=0,
        decode=str,
        image_block=(1, 2, 3, 4),
        stop_ids=frozenset(),
        num_prompt=num_prompt,
        prompt_blocks=blocks,
    )
    if draws:
        row.begin_picture()
    row.fed = fed
    return row


def plan(rows, tokens=20, chunk=8):
    found = plan_step(rows, tokens_per_step=tokens, prefill_chunk=chunk)
    return [(span.slot, span.start, span.length) for _, span in found]


def test_who_writes_comes_first_then_the_oldest_prompt():
    rows = [make_row(4, 30), make_row(2, 10, fed=9), make_row(3, 5), make_row(1, 6, fed=5)]
    assert plan(rows) == [(1, 9, 1), (3, 5, 1), (2, 0, 5), (0, 0, 8)]


def test_a_long_prompt_lets_others_pass_and_ends():
    long, short = make_row(0, 30), make_row(1, 3)
    assert plan([long, short]) == [(0, 0, 8), (1, 0, 3)]
    long.fed, short.fed = 24, 2
    assert plan([long, short]) == [(1, 2, 1), (0, 24, 6)]


def test_when_the_step_is_full_the_younger_wait():
    rows = [make_row(number, 8) for number in range(4)]
    assert plan(rows) == [(0, 0, 8), (1, 0, 8), (2, 0, 4)]


def test_everybody_who_writes_gets_a_token_even_in_a_small_step():
    rows = [make_row(number, 5, fed=4) for number in range(4)] + [make_row(9, 7)]
    assert plan(rows, tokens=2) == [(0, 4, 1), (1, 4, 1), (2, 4, 1), (3, 4, 1), (4, 0, 1)]


@pytest.mark.parametrize(
    ("fed", "blocks", "expected"),
    [
        (0, ((6, 12),), (0, 6)),  # cut before the block
        (6, ((6, 12),), (6, 8)),  # the whole of it and some more
        (6, ((6, 18),), (6, 12)),  # longer than a chunk, and still whole
        (0, ((2, 8),), (0, 8)),
        (0, ((2, 5), (5, 9)), (0, 5)),
    ],
)
def test_a_block_is_never_cut(fed, blocks, expected):
    [(_, start, length)] = plan([make_row(0, 20, fed=fed, blocks=blocks)])
    assert (start, length) == expected


def test_blocks_are_told_from_the_first_token_of_the_piece():
    [(_, span)] = plan_step(
        [make_row(0, 20, fed=3, blocks=((1, 3), (4, 6), (7, 9), (12, 15)))],
        tokens_per_step=20,
        prefill_chunk=8,
    )
    assert (span.length, span.blocks) == (8, ((1, 3), (4, 6)))


def test_a_block_that_does_not_fit_behind_others_waits_for_its_turn():
    rows = [make_row(0, 18), make_row(1, 9, blocks=((0, 9),))]
    assert plan(rows, chunk=16) == [(0, 0, 16)]
    rows[0].fed = 17
    assert plan(rows, chunk=16) == [(0, 17, 1), (1, 0, 9)]


def test_a_picture_to_be_drawn_is_taken_as_one():
    row = make_row(0, 6, draws=True)
    assert plan([row]) == [(0, 0, 6)]
    row.fed = 6
    assert plan([row], chunk=2) == [(0, 6, 4)]
    assert plan([make_row(0, 6, draws=True)], chunk=20) == [(0, 0, 10)]
