import pytest
import torch

from mllm_npu.errors import RequestError
from mllm_npu.models.language_model.own_caches import OwnCaches
from mllm_npu.models.language_model.slots import Span


class Counting:
    """Its states are the tokens its cache holds so far."""

    def new_cache(self):
        return []

    def extend(self, embeds_BLD, cache, *, blocks=()):
        cache.append((embeds_BLD.shape[1], blocks))
        return embeds_BLD + sum(num for num, _ in cache)


def test_requests_run_one_by_one_and_a_span_from_nought_begins_anew():
    slots = OwnCaches(Counting(), num_slots=2, max_tokens=8)
    spans = [Span(slot=1, start=0, length=2), Span(slot=0, start=0, length=3)]
    assert slots.advance(torch.zeros(5, 1), spans).flatten().tolist() == [2, 2, 3, 3, 3]
    assert slots.advance(torch.zeros(1, 1), [Span(slot=1, start=2, length=1)]).item() == 3
    slots.move(1, 0, 3)
    assert slots.advance(torch.zeros(1, 1), [Span(slot=0, start=3, length=1)]).item() == 4
    assert slots.advance(torch.zeros(1, 1), [Span(slot=0, start=0, length=1)]).item() == 1


def test_blocks_are_handed_on():
    model = Counting()
    slots = OwnCaches(model, num_slots=1, max_tokens=8)
    slots.advance(torch.zeros(3, 1), [Span(slot=0, start=0, length=3, blocks=((0, 2),))])
    assert slots._caches[0] == [(3, [((0, 2),)])]


def test_it_keeps_no_beginnings():
    slots = OwnCaches(Counting(), num_slots=1, max_tokens=8)
    assert not slots.can_copy
    with pytest.raises(RequestError, match="can_copy"):
        slots.read(0, 3)
    with pytest.raises(RequestError, match="can_copy"):
        slots.write(0, (), 3)
