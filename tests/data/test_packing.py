import numpy as np
import pytest

from mllm_npu.data.packing import pack_evenly
from mllm_npu.errors import ConfigError


def pack(tokens, tiles=None, *, budget, tile_budget=None):
    tokens = np.asarray(tokens, dtype=np.int64)
    tiles = np.zeros_like(tokens) if tiles is None else np.asarray(tiles, dtype=np.int64)
    groups = pack_evenly(tokens, tiles, tokens_per_pack=budget, tiles_per_pack=tile_budget)
    loads = np.array([tokens[group].sum() for group in groups])
    seen = np.array([tiles[group].sum() for group in groups])
    return groups, loads, seen


def first_fit_decreasing(tokens, budget):
    """The textbook's packing, for comparison."""
    rooms = []
    for length in sorted(tokens, reverse=True):
        place = next((n for n, room in enumerate(rooms) if room >= length), None)
        if place is None:
            rooms.append(budget)
            place = len(rooms) - 1
        rooms[place] -= length
    return len(rooms)


def mixed(seed, count=3000, read_share=0.1):
    """Lengths and tiles of the published caption mix: one tenth read with five tiles."""
    rng = np.random.default_rng(seed)
    caption = rng.integers(10, 60, count)
    reads = rng.random(count) < read_share
    return np.where(reads, 330, 66) + caption, np.where(reads, 5, 1)


@pytest.mark.parametrize("seed", range(5))
def test_every_sample_once_and_no_group_over_a_budget(seed):
    tokens, tiles = mixed(seed)
    groups, loads, seen = pack(tokens, tiles, budget=2048, tile_budget=24)
    assert sorted(number for group in groups for number in group) == list(range(3000))
    assert loads.max() <= 2048
    assert seen.max() <= 24


@pytest.mark.parametrize("seed", range(3))
def test_groups_are_full_and_cost_the_same(seed):
    tokens, tiles = mixed(seed)
    _, loads, seen = pack(tokens, tiles, budget=4096)
    assert 1 - loads.sum() / (4096 * len(loads)) <= 0.02
    assert seen.std() / seen.mean() <= 0.05
    assert loads.std() / loads.mean() <= 0.03


@pytest.mark.parametrize("seed", range(3))
def test_it_takes_few_more_groups_than_first_fit_decreasing(seed):
    tokens = np.random.default_rng(seed).integers(10, 900, 2000)
    groups, _, _ = pack(tokens, budget=2048)
    assert len(groups) <= first_fit_decreasing(tokens.tolist(), 2048) * 1.04


def test_every_group_has_its_share_of_long_samples():
    """A greedy fill would put them all together."""
    tokens = [100] * 50 + [10] * 500
    groups, _, _ = pack(tokens, budget=1000)
    assert [sum(number < 50 for number in group) for group in groups] == [5] * 10


def test_tiles_are_evened_out_where_tokens_alone_would_not():
    tokens, tiles = [100] * 40, [9] * 10 + [0] * 30
    _, loads, seen = pack(tokens, tiles, budget=1000)
    assert loads.tolist() == [1000] * 4
    assert sorted(seen.tolist()) == [18, 18, 27, 27]


def test_tiles_alone_can_make_more_groups():
    groups, _, seen = pack([1] * 20, [4] * 20, budget=1000, tile_budget=10)
    assert len(groups) == 10
    assert seen.tolist() == [8] * 10


def test_a_sample_over_a_budget_stands_alone():
    groups, _, _ = pack([3, 50, 4], budget=10)
    assert groups == [[1], [2, 0]]
    groups, _, _ = pack([3, 3, 4], [1, 9, 1], budget=10, tile_budget=5)
    assert groups == [[1], [0, 2]]


def test_nothing_gives_nothing():
    assert pack([], budget=10)[0] == []
    assert pack([0, 0], budget=10)[0] == [[0, 1]]


def test_equal_input_gives_equal_groups():
    tokens, tiles = mixed(1)
    assert pack(tokens, tiles, budget=999)[0] == pack(tokens, tiles, budget=999)[0]


@pytest.mark.parametrize(("budget", "tile_budget"), [(0, None), (-5, None), (10, 0)])
def test_a_budget_that_holds_nothing_is_refused(budget, tile_budget):
    with pytest.raises(ConfigError, match=f"tokens_per_pack={budget} and tiles_per_pack"):
        pack([1], budget=budget, tile_budget=tile_budget)
