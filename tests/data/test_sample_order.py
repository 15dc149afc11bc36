import numpy as np
import pytest

from mllm_npu.data.sample_order import SampleOrder
from mllm_npu.errors import ConfigError

SIZES = [30, 0, 50, 20, 100]


def order_of(**changes):
    settings = {"shard_sizes": np.array(SIZES), "name": "set", "seed": 0, "window": 60}
    return SampleOrder(**{**settings, **changes})


def test_every_visit_takes_every_sample_once():
    order = order_of()
    for visit in range(3):
        taken = order.take(visit * 200, 200)
        assert sorted(taken.sample.tolist()) == list(range(200))
        assert set(taken.visit.tolist()) == {visit}


def test_any_piece_equals_that_piece_of_the_whole():
    whole = order_of().take(0, 650).sample.tolist()
    for start, count in ((0, 1), (59, 2), (199, 3), (130, 500), (640, 0)):
        assert order_of().take(start, count).sample.tolist() == whole[start : start + count]


def test_shard_and_place_say_which_sample_it_is():
    taken = order_of().take(0, 400)
    first = np.cumsum([0, *SIZES])[:-1]
    assert (first[taken.shard] + taken.place == taken.sample).all()
    assert (taken.place < np.array(SIZES)[taken.shard]).all()
    assert 1 not in taken.shard


def test_samples_are_shuffled_in_a_window_of_shuffled_shards():
    order = order_of(shard_sizes=np.full(20, 10), window=40)
    taken = order.take(0, 200)
    windows = taken.shard.reshape(5, 40)
    # Reads stay within the shards of a window.
    assert [len(set(window.tolist())) for window in windows] == [4] * 5
    assert len({shard for window in windows for shard in set(window.tolist())}) == 20
    assert sorted(set(taken.shard.tolist())) != [*dict.fromkeys(taken.shard.tolist())]
    in_order = np.diff(taken.sample) == 1
    assert in_order.mean() < 0.1


def test_order_follows_from_seed_name_and_visit():
    samples = order_of().take(0, 200).sample
    assert (order_of().take(0, 200).sample == samples).all()
    for other in (order_of(seed=1), order_of(name="other")):
        assert (other.take(0, 200).sample != samples).mean() > 0.5
    assert (order_of().take(200, 200).sample != samples).mean() > 0.5


def test_memory_and_time_grow_with_shards_not_samples():
    order = order_of(shard_sizes=np.full(10_000, 1_000_000), window=1 << 16)
    taken = order.take(7_123_456_789, 100)
    assert len(set(taken.sample.tolist())) == 100
    assert taken.sample.max() < 10**10


def test_an_empty_window_is_refused():
    with pytest.raises(ConfigError, match="shuffle_window=0"):
        order_of(window=0)
