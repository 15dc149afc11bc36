import numpy as np

from mllm_npu.data.hashing import chances, hash_numbers, permutation, random_of


def test_the_hash_is_the_same_on_every_machine():
    # A recorded value: a change here changes the order of every saved run (iteration order).
    assert hash_numbers(np.arange(3), 0, "x").tolist() == [
        1980278442725395949,
        1277175546984525937,
        16262832512627344484,
    ]
    assert permutation(6, 7, "shards").tolist() == [3, 0, 5, 2, 1, 4]
    assert random_of(1, 2, "set", 3).randrange(10**6) == 923777


def test_every_number_once_and_another_order_for_another_purpose():
    first, second = permutation(1000, 0, "a"), permutation(1000, 0, "b")
    assert sorted(first.tolist()) == list(range(1000))
    assert (first != second).mean() > 0.9
    assert (first == permutation(1000, 0, "a")).all()
    assert permutation(0, 0).tolist() == []


def test_chances_are_even_and_do_not_follow_the_numbers():
    drawn = chances(np.arange(100_000), "form")
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert np.allclose(np.histogram(drawn, bins=10, range=(0, 1))[0], 10_000, rtol=0.05)
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.02
    assert (chances(np.array([5, 7]), "form") == drawn[[5, 7]]).all()


def test_random_sources_of_other_purposes_differ():
    drawn = {random_of(0, visit, "set", sample).random() for visit in range(9) for sample in (1, 2)}
    assert len(drawn) == 18
    assert random_of(0, 1).random() == random_of(0, 1).random()
