import pytest
from launching import launch
from play_sequences import HEADS, PACKS, attend_together


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    return launch(attend_together, size=4, folder=tmp_path_factory.mktemp("sequences"))


def test_ranks_stand_in_the_order_of_their_stretches(four):
    assert [found["place"] for found in four] == [(0, 4), (1, 4), (2, 4), (3, 4)]


def test_each_rank_holds_a_stretch_padded_to_the_same_length(four):
    whole = [[2.0 * token, 2.0 * token + 1] for token in range(7)] + [[0.0, 0.0]]
    assert [found["own"] for found in four] == [whole[2 * r : 2 * r + 2] for r in range(4)]
    assert [found["numbers"] for found in four] == [[1, 2], [3, 4], [5, 0], [0, 0]]


def test_stretches_are_joined_on_every_rank_without_the_padding(four):
    whole = [[2.0 * token, 2.0 * token + 1] for token in range(7)]
    assert all(found["joined"] == whole for found in four)


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("ends", PACKS)
def test_attention_and_its_gradients_are_those_of_one_process(four, heads, ends):
    """Also with fewer key heads than ranks, and for packs that do not split evenly."""
    assert {found["differences"][f"{heads} {ends}"] < 1e-5 for found in four} == {True}


def test_heads_that_cannot_be_shared_out_are_refused_with_their_number(four):
    for found in four:
        assert set(found["errors"]) == {(2, False), (6, False), (3, True), (6, True)}
        for (heads, _), message in found["errors"].items():
            assert f"sequence_size=4 was asked for, and an attention layer has {heads}" in message
