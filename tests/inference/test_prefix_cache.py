import numpy as np
import torch

from mllm_npu.batch import Sample
from mllm_npu.inference.prefix_cache import PrefixCache, mark_tokens
from mllm_npu.inference.tile_cache import name_tiles
from mllm_npu.processing.conversation import ask


def marks(*numbers):
    return np.array(numbers, dtype=np.int64)


def states(value, length):
    return (torch.full((2, length, 4), float(value)),)


def make_cache(**sizes):
    return PrefixCache(**{"max_bytes": 2**20, "least": 2} | sizes)


def test_the_longest_common_beginning_is_found():
    cache = make_cache()
    cache.keep(marks(1, 2, 3, 4), states(1, 4))
    cache.keep(marks(1, 2, 9, 9, 9), states(2, 5))
    found = cache.find(marks(1, 2, 9, 9, 5, 6))
    assert (found.length, found.states[0][0, 0, 0].item()) == (4, 2.0)
    assert cache.find(marks(1, 2, 3, 8)).length == 3
    assert cache.find(marks(2, 2, 3)) is None
    assert (cache.num_hits, cache.num_tokens) == (2, 7)


def test_the_last_token_is_always_left_to_compute():
    cache = make_cache()
    cache.keep(marks(1, 2, 3, 4), states(1, 4))
    assert cache.find(marks(1, 2, 3, 4)).length == 3
    assert cache.is_known(marks(1, 2, 3, 4))
    assert cache.is_known(marks(1, 2))
    assert not cache.is_known(marks(1, 2, 3, 4, 5))


def test_a_block_is_not_cut():
    cache = make_cache()
    cache.keep(marks(*range(10)), states(1, 10))
    assert cache.find(marks(*range(10)), ((4, 10),)).length == 4
    assert cache.find(marks(*range(8), 99, 99), ((4, 8),)).length == 8
    assert cache.find(marks(*range(10)), ((1, 10),)) is None


def test_a_beginning_that_is_too_short_is_not_worth_it():
    cache = make_cache(least=4)
    cache.keep(marks(1, 2, 3, 4, 5), states(1, 5))
    assert cache.find(marks(1, 2, 3, 9, 9)) is None
    assert cache.find(marks(1, 2, 3, 4, 9)).length == 4


def test_a_longer_prompt_takes_the_place_of_its_beginnings():
    cache = make_cache()
    cache.keep(marks(1, 2, 3), states(1, 3))
    cache.keep(marks(1, 5), states(2, 2))
    cache.keep(marks(1, 2, 3, 4), states(3, 4))
    assert len(cache) == 2
    assert cache.find(marks(1, 2, 3, 9)).states[0][0, 0, 0].item() == 3.0


def test_what_was_used_longest_ago_leaves_when_memory_or_number_is_full():
    size = 2 * 3 * 4 * 4
    for limit in ({"max_bytes": 2 * size}, {"most": 2}):
        cache = make_cache(**limit)
        cache.keep(marks(1, 2, 3), states(1, 3))
        cache.keep(marks(4, 5, 6), states(2, 3))
        cache.find(marks(1, 2, 3, 4))
        cache.keep(marks(7, 8, 9), states(3, 3))
        assert cache.find(marks(4, 5, 6, 7)) is None
        assert cache.find(marks(1, 2, 3, 4)).length == 3
    tiny = make_cache(max_bytes=size - 1)
    tiny.keep(marks(1, 2, 3), states(1, 3))
    assert len(tiny) == 0


def test_tokens_of_a_picture_are_marked_by_what_it_shows(fakes, real_processor):
    def mark(seed, text="Read the digits."):
        sample = real_processor.encode(ask(text, [fakes.noise_picture(seed)]), reply=True)
        return sample, mark_tokens(sample, name_tiles(sample))

    sample, one = mark(0)
    (_, again), (_, other) = mark(0), mark(1)
    slots = sample.read_slots.flatten().numpy()
    assert (one == again).all()
    assert (one[slots] < 0).all()
    assert len(set(one[slots].tolist())) == len(slots)
    assert (one[slots] != other[slots]).all()
    rest = np.delete(np.arange(len(one)), slots)
    assert (one[rest] == sample.input_ids.numpy()[rest]).all()
    assert (one[rest] == other[rest]).all()


def joined_sample(sources, weights=None):
    places = torch.arange(1, 1 + len(sources))
    return Sample(
        input_ids=torch.arange(2 + len(sources)),
        labels=torch.full((2 + len(sources),), -100),
        tiles=torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
        tile_positions=torch.full((2, 2), 0.5),
        read_tiles=torch.arange(2),
        read_slots=torch.empty(0, 3, dtype=torch.int64),
        draw_tiles=torch.empty(0, dtype=torch.int64),
        draw_slots=torch.empty(0, 0, dtype=torch.int64),
        grid_slots=places,
        grid_sources=torch.tensor(sources),
        grid_weights=None if weights is None else torch.tensor(weights),
    )


def test_joined_tokens_are_what_they_are_made_of():
    names = (b"first" * 4, b"second." * 3)
    plain = mark_tokens(joined_sample([[4], [1], [0], [3]]), names)
    assert plain[[0, 5]].tolist() == [0, 5]
    assert (plain[1:5] < 0).all()
    assert len(set(plain.tolist())) == 6
    # The same tiles in another arrangement: only what is the same has the same mark.
    other = mark_tokens(joined_sample([[4], [2], [0], [3]]), names)
    assert (plain == other).tolist() == [True, True, False, True, True, True]
    changed = mark_tokens(joined_sample([[4], [1], [0], [3]]), (b"third" * 4, names[1]))
    assert (plain == changed).tolist() == [True, True, False, True, False, True]


def test_shares_count_in_the_mark_of_a_joined_token():
    names = (b"first" * 4, b"second." * 3)
    sources = [[1, 2], [1, 2], [2, 1], [0, 0]]
    shares = [[0.5, 0.5], [0.25, 0.75], [0.5, 0.5], [1.0, 0.0]]
    found = mark_tokens(joined_sample(sources, shares), names)
    assert len(set(found.tolist())) == 6
    assert (found[1:5] < 0).all()
    assert np.array_equal(found, mark_tokens(joined_sample(sources, shares), names))
