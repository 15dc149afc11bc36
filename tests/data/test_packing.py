import random

import pytest

from mllm_npu.data.packing import pack_evenly
from mllm_npu.errors import ConfigError


def test_the_longest_piece_left_goes_to_the_emptiest_group():
    assert pack_evenly([4, 8, 1, 4, 2, 1], 10) == ([[1, 4], [0, 3, 2, 5]], [])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("is_last", [True, False])
def test_every_piece_once_and_no_group_over_capacity(seed, is_last):
    rng = random.Random(seed)
    lengths = [rng.randint(1, 100) for _ in range(500)]
    groups, rest = pack_evenly(lengths, 1000, is_last=is_last)
    assert sorted([*rest, *(piece for group in groups for piece in group)]) == list(range(500))
    loads = [sum(lengths[piece] for piece in group) for group in groups]
    assert max(loads) <= 1000
    assert min(loads) >= (900 if is_last else 985)
    assert not (is_last and rest)


def test_groups_are_alike():
    """Every group has its share of long pieces; a greedy fill would put them all together."""
    lengths = [100] * 50 + [10] * 500
    groups, rest = pack_evenly(lengths, 1000)
    assert not rest
    assert [sum(lengths[piece] == 100 for piece in group) for group in groups] == [5] * 10


def test_a_piece_that_is_too_long_stands_alone():
    assert pack_evenly([3, 50, 4], 10) == ([[1], [2, 0]], [])


def test_what_fills_no_group_waits():
    assert pack_evenly([3, 4], 10, is_last=False) == ([], [1, 0])


def test_nothing_gives_nothing_and_a_bad_capacity_is_refused():
    assert pack_evenly([], 10) == ([], [])
    with pytest.raises(ConfigError, match="tokens_per_pack=0"):
        pack_evenly([1], 0)
