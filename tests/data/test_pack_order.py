from itertools import islice

import numpy as np
import pytest

from mllm_npu.data.pack_order import PackOrder
from mllm_npu.data.plan import plan_epoch


class Fixed:
    """A source of which the order needs the name and the weight only."""

    def __init__(self, name, weight):
        self.name = name
        self.weight = weight


def order_of(**changes):
    settings = {
        "sources": [Fixed("a", 1.0), Fixed("b", 3.0)],
        "lengths": [np.full(30, 4), np.full(50, 6)],
        "tokens_per_pack": 20,
        "seed": 0,
        "samples_per_epoch": 40,
    }
    return PackOrder(**{**settings, **changes})


def test_plans_are_those_of_the_pure_function():
    expected = plan_epoch(
        seed=0,
        epoch=3,
        sizes=[30, 50],
        weights=[1.0, 3.0],
        lengths=[np.full(30, 4), np.full(50, 6)],
        tokens_per_pack=20,
        samples_per_epoch=40,
    )
    assert order_of().plan(3) == expected


def test_an_epochs_end_is_the_next_ones_start():
    order = order_of()
    size = len(order.plan(0))
    assert order.advance((0, 0), size - 1) == (0, size - 1)
    assert order.advance((0, size - 1), 1) == (1, 0)
    assert order.advance((0, 5), size + len(order.plan(1))) == (2, 5)
    assert order.advance((2, 3), 0) == (2, 3)


@pytest.mark.parametrize("world_size", [1, 3, 4])
def test_ranks_share_the_row_of_packs_without_gap_or_overlap(world_size):
    order = order_of()
    row = [pack for epoch in range(3) for pack in order.plan(epoch)]
    start = (0, 2)
    walks = [
        order.walk(start, rank=rank, world_size=world_size, epochs=None)
        for rank in range(world_size)
    ]
    steps = islice(zip(*walks, strict=True), (len(row) - 2) // world_size)
    flat = [pack for step in steps for pack in step]
    assert flat == row[2 : 2 + len(flat)]
    assert len(flat) > len(row) - 2 - world_size


def test_a_walk_ends_before_a_step_that_is_not_whole():
    order = order_of()
    size = len(order.plan(0))
    walks = [list(order.walk((0, 0), rank=r, world_size=4, epochs=1)) for r in range(4)]
    assert {len(walk) for walk in walks} == {size // 4}


def test_the_fingerprint_tells_orders_apart():
    changes = [
        {"seed": 1},
        {"tokens_per_pack": 21},
        {"samples_per_epoch": None},
        {"sources": [Fixed("a", 1.0), Fixed("c", 3.0)]},
        {"sources": [Fixed("a", 1.0), Fixed("b", 2.0)]},
        {"lengths": [np.full(30, 4), np.full(50, 5)]},
    ]
    prints = [order_of(**change).fingerprint() for change in ({}, *changes)]
    assert len(set(prints)) == len(prints)
    assert order_of().fingerprint() == prints[0]


def test_only_two_plans_stay_in_memory():
    order = order_of()
    for epoch in range(5):
        order.plan(epoch)
    assert set(order._plans) == {3, 4}
