import random

import pytest

from mllm_npu.data.packing import pack_first_fit_decreasing
from mllm_npu.errors import ConfigError


def test_fills_groups_greedily_from_the_longest():
    assert pack_first_fit_decreasing([4, 8, 1, 4, 2, 1], 10) == [[1, 4], [0, 3, 2, 5]]


@pytest.mark.parametrize("seed", range(5))
def test_every_piece_once_and_no_group_over_capacity(seed):
    rng = random.Random(seed)
    lengths = [rng.randint(1, 100) for _ in range(500)]
    groups = pack_first_fit_decreasing(lengths, 100)
    assert sorted(piece for group in groups for piece in group) == list(range(500))
    assert all(sum(lengths[piece] for piece in group) <= 100 for group in groups)
    # First-fit-decreasing never takes more than 11/9 of the best, and the best is at least this.
    assert len(groups) <= 11 / 9 * -(-sum(lengths) // 100) + 1


def test_a_piece_that_is_too_long_stands_alone():
    assert pack_first_fit_decreasing([3, 50, 4], 10) == [[1], [2, 0]]


def test_nothing_gives_nothing_and_a_bad_capacity_is_refused():
    assert pack_first_fit_decreasing([], 10) == []
    with pytest.raises(ConfigError, match="tokens_per_pack=0"):
        pack_first_fit_decreasing([1], 0)
