from itertools import chain, islice

import pytest

from mllm_npu.data.pack_order import PackOrder, Position
from mllm_npu.data.plan import Plan
from mllm_npu.errors import CheckpointError


@pytest.fixture
def order(counted_source, processor):
    sources = [counted_source("a", 1.0, [[4] * 30]), counted_source("b", 3.0, [[6] * 25] * 2)]

    def build(**changes):
        settings = {
            "sources": sources,
            "processor": processor,
            "tokens_per_pack": 30,
            "seed": 0,
            "samples_per_epoch": 40,
            "plan_window": 15,
        }
        return PackOrder(plan=Plan(**{**settings, **changes}))

    return build


def test_packs_of_all_epochs_come_in_one_row_with_the_position_behind_each(order):
    row = [pack for epoch in range(3) for pack in order().epoch(epoch)]
    found = list(islice(order().packs(Position()), len(row)))
    assert [pack for pack, _ in found] == row
    consumed, epoch = 0, 0
    for pack, behind in found:
        consumed += len(pack)
        if consumed == 40:
            epoch, consumed = epoch + 1, 0
        assert behind == (epoch, consumed)


def test_the_row_goes_on_from_any_position(order):
    row = list(islice(order().packs(Position()), 30))
    for number, (_, behind) in enumerate(row[:-1], start=1):
        assert list(islice(order().packs(behind), 30 - number)) == row[number:]


def test_a_position_inside_a_pack_is_refused(order):
    first = order().epoch(0)[0]
    assert len(first) > 1
    with pytest.raises(CheckpointError, match="lies inside a pack"):
        next(order().packs(Position(0, len(first) - 1)))


@pytest.mark.parametrize("world_size", [1, 3, 4])
def test_ranks_share_the_row_of_packs_without_gap_or_overlap(order, world_size):
    row = list(islice(order().packs(Position()), 40))
    _, start = row[1]
    walks = [
        order().walk(start, rank=rank, world_size=world_size, epochs=None)
        for rank in range(world_size)
    ]
    steps = list(islice(zip(*walks, strict=True), 38 // world_size))
    flat = [pack for step in steps for pack, _ in step]
    assert flat == [pack for pack, _ in row[2 : 2 + len(flat)]]
    # The position is that behind the whole step, the same on every rank.
    for number, step in enumerate(steps, start=1):
        assert {behind for _, behind in step} == {row[1 + number * world_size][1]}


def test_a_walk_ends_before_a_step_that_is_not_whole(order):
    size = sum(len(order().epoch(epoch)) for epoch in range(2))
    walks = [list(order().walk(Position(), rank=r, world_size=4, epochs=2)) for r in range(4)]
    assert {len(walk) for walk in walks} == {size // 4}
    assert list(order().walk(Position(2, 0), rank=0, world_size=1, epochs=2)) == []


def test_a_window_is_planned_once_for_who_asks_again(order):
    made = order()
    planned = []
    window = made.plan.window
    made.plan.window = lambda epoch, number: (
        planned.append((epoch, number)) or window(epoch, number)
    )
    list(islice(made.packs(Position()), 3))
    list(islice(made.packs(Position()), 3))
    assert planned == [(0, 0)]


def test_every_sample_of_an_epoch_is_in_its_packs(order):
    picks = list(chain.from_iterable(order().epoch(0)))
    assert len(picks) == len(set(picks)) == 40
