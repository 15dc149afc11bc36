"""Which rows are a family, what they have in common, and how families are split."""

from random import Random

import numpy as np
import pytest
import torch

from mllm_npu.batch import Sample
from mllm_npu.inference.likelihood_rows import (
    Family,
    Row,
    fed_lengths,
    find_families,
    split_families,
)


def sample_of(num_tokens):
    empty = torch.empty(0, dtype=torch.int64)
    return Sample(
        input_ids=torch.zeros(num_tokens, dtype=torch.int64),
        labels=torch.zeros(num_tokens, dtype=torch.int64),
        tiles=torch.empty(0, 3, 2, 2, dtype=torch.uint8),
        tile_positions=torch.empty(0, 2),
        read_tiles=empty,
        read_slots=torch.empty(0, 1, dtype=torch.int64),
        draw_tiles=empty,
        draw_slots=torch.empty(0, 1, dtype=torch.int64),
    )


def make_row(ids, stem=(), *, question=0, blocks=()):
    """A question of some tokens, then the beginning of a text."""
    return Row(
        question=question,
        sample=sample_of(len(ids)),
        marks=np.asarray([*ids, *stem], dtype=np.int64),
        stem=tuple(stem),
        texts=((0, (*stem, 7)),),
        blocks=blocks,
    )


SHOTS = list(range(100, 140))


def commons(rows, **options):
    return [(len(f.rows), f.common) for f in find_families(rows, **{"shares": True, **options})]


def test_rows_that_begin_alike_are_a_family():
    rows = [make_row([*SHOTS, last, 1]) for last in (1, 2, 3)]
    assert commons(rows) == [(3, 40)]
    assert rows[0].length == 42


def test_without_sharing_each_row_is_alone():
    rows = [make_row([*SHOTS, last]) for last in (1, 2)]
    assert commons(rows, shares=False) == [(1, 0), (1, 0)]
    assert commons([]) == []


def test_a_family_ends_where_another_beginning_comes():
    other = list(range(200, 240))
    rows = [make_row([*start, last]) for start in (SHOTS, other, SHOTS) for last in (1, 2)]
    assert commons(rows) == [(2, 40), (2, 40), (2, 40)]
    assert [family.number for family in find_families(rows, shares=True)] == [0, 1, 2]


@pytest.mark.parametrize(("common", "is_family"), [(31, False), (32, True)])
def test_a_short_beginning_is_not_worth_a_copy(common, is_family):
    rows = [make_row([*range(common), 900 + n]) for n in range(2)]
    assert commons(rows) == ([(2, common)] if is_family else [(1, 0), (1, 0)])


def test_nor_is_one_that_is_a_small_share():
    rows = [make_row([*SHOTS, *range(1000 * n, 1000 * n + 200)]) for n in (1, 2)]
    assert commons(rows) == [(1, 0), (1, 0)]


def test_a_row_that_would_shrink_the_common_beginning_too_much_stays_out():
    long = list(range(1000, 1400))
    rows = [make_row([*long, 1]), make_row([*long, 2]), make_row([*long[:80], 3])]
    assert commons(rows) == [(2, 400), (1, 0)]
    assert commons([*rows[:2], make_row([*long[:120], 3])]) == [(3, 120)]


def test_the_end_of_a_question_is_never_in_common_since_the_first_token_is_read_there():
    rows = [make_row(SHOTS, stem) for stem in ([1, 2], [1, 3])]
    assert commons(rows) == [(2, 39)]


def test_a_tile_that_sees_all_of_itself_is_in_common_whole_or_not_at_all():
    for end, common in ((38, 40), (40, 40), (44, 36)):
        rows = [make_row([*SHOTS, n, *range(9)], blocks=((36, end),)) for n in (1, 2)]
        [family] = find_families(rows, shares=True)
        assert family.common == common
        assert family.common_blocks == (((36, end),) if end <= common else ())


def test_one_family_is_fed_to_one_length_and_several_each_to_its_own():
    rows = [make_row([*SHOTS, *range(n, 2 * n)]) for n in (2, 5, 3)]
    [family] = find_families(rows, shares=True)
    assert fed_lengths([family]) == [5, 5, 5]
    alone = Family(number=1, rows=[make_row(range(7))], common=0)
    assert fed_lengths([family, alone]) == [2, 5, 3, 7]


def test_rows_with_tiles_behind_the_common_beginning_are_not_padded():
    rows = [
        make_row([*SHOTS, *range(n)], blocks=((10, 12), (40, 42)) if n > 2 else ((10, 12),))
        for n in (2, 5)
    ]
    [family] = find_families(rows, shares=True)
    assert fed_lengths([family]) == [2, 5]
    assert fed_lengths([Family(number=0, rows=rows[:1], common=40)]) == [2]


def test_a_family_that_is_too_large_is_split_the_longest_first():
    rows = [make_row([*SHOTS, *range(n)], question=n) for n in (1, 4, 2, 3, 5)]
    families = find_families(rows, shares=True)
    batches = list(split_families(families, max_rows=2, max_tokens=10_000))
    assert [[row.question for row in family.rows] for batch in batches for family in batch] == [
        [5, 4],
        [3, 2],
        [1],
    ]
    assert {family.common for batch in batches for family in batch} == {40}


@pytest.mark.parametrize("seed", range(5))
def test_every_row_is_fed_once_and_no_batch_is_too_large(seed):
    random = Random(seed)
    rows, question = [], 0
    for start in range(12):
        begin = [*range(1000 * start, 1000 * start + random.randint(1, 80))]
        for _ in range(random.randint(1, 9)):
            end = [9000 + question, *range(random.randint(0, 30))]
            rows.append(make_row([*begin, *end], question=question))
            question += 1
    families = find_families(rows, shares=True)
    batches = list(split_families(families, max_rows=6, max_tokens=150))
    fed = [row.question for batch in batches for family in batch for row in family.rows]
    assert sorted(fed) == list(range(question))
    for batch in batches:
        lengths = [max(row.length for row in f.rows) - f.common for f in batch]
        tokens = sum(
            f.common + len(f.rows) * longest for f, longest in zip(batch, lengths, strict=True)
        )
        num_rows = sum(len(family.rows) for family in batch)
        assert num_rows <= 6
        assert tokens <= 150 or num_rows == 1
    for batch in batches:
        for family in batch:
            first = family.rows[0].marks[: family.common]
            assert all((row.marks[: family.common] == first).all() for row in family.rows)
