import pytest
import torch
from transformers import DynamicCache

from mllm_npu.errors import RequestError
from mllm_npu.models.language_model.key_value_cache import KeyValueCache
from mllm_npu.ops.attention import NEVER_VISIBLE

CPU = torch.device("cpu")


@pytest.fixture
def cache():
    return KeyValueCache(states=DynamicCache())


def test_rows_of_one_length_need_no_mask(cache):
    first = cache.append(2, 3, None, CPU)
    second = cache.append(2, 1, None, CPU)
    assert first.first
    assert not first.sees_all
    assert second.sees_all
    assert second.query_positions.tolist() == [[3], [3]]
    assert cache.lengths == (4, 4)


def test_padding_keeps_its_place_and_is_never_seen(cache):
    first = cache.append(2, 3, (3, 1), CPU)
    second = cache.append(2, 1, None, CPU)
    assert not first.first
    assert not second.sees_all
    assert second.key_positions.tolist() == [
        [0, 1, 2, 3],
        [0, NEVER_VISIBLE, NEVER_VISIBLE, 1],
    ]
    assert second.query_positions.tolist() == [[3], [1]]
    assert cache.lengths == (4, 2)


def test_a_row_may_wait_while_others_go_on(cache):
    cache.append(2, 2, None, CPU)
    layout = cache.append(2, 3, (3, 0), CPU)
    assert cache.lengths == (5, 2)
    assert layout.key_positions[1].tolist() == [0, 1, *[NEVER_VISIBLE] * 3]


def test_rows_are_kept_in_the_order_asked_for(cache):
    cache.append(3, 2, (1, 2, 2), CPU)
    keys = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, 2, 1)
    cache.states.update(keys, keys, 0)
    cache.select([2, 0])
    assert cache.lengths == (2, 1)
    assert cache.states.layers[0].keys[:, 0, 0, 0].tolist() == [2.0, 0.0]
    layout = cache.append(2, 1, None, CPU)
    assert layout.query_positions.tolist() == [[2], [1]]


@pytest.mark.parametrize(
    ("num_rows", "num_new", "lengths"),
    [(3, 1, None), (2, 0, None), (2, 1, (1,)), (2, 1, (1, 2)), (2, 1, (-1, 1))],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(cache, num_rows, num_new, lengths):
    cache.append(2, 2, None, CPU)
    with pytest.raises(RequestError):
        cache.append(num_rows, num_new, lengths, CPU)
    assert cache.lengths == (2, 2)


def test_a_row_without_any_token_is_refused(cache):
    with pytest.raises(RequestError, match="at least one token in every row"):
        cache.append(2, 2, (2, 0), CPU)


@pytest.mark.parametrize("rows", [[], [2], [-1]])
def test_rows_that_are_not_there_are_refused(cache, rows):
    cache.append(2, 1, None, CPU)
    with pytest.raises(RequestError, match=r"rows 0\.\.1"):
        cache.select(rows)
