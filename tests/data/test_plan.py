from collections import Counter
from itertools import chain

import numpy as np
import pytest

from mllm_npu.data.plan import PACKING_WINDOW, plan_epoch, share_out
from mllm_npu.errors import ConfigError

SIZES = (300, 70, 1100)
RECORDED = [
    [(1, 1, 0), (0, 4, 0), (1, 2, 0)],
    [(1, 0, 0), (0, 0, 0)],
    [(0, 2, 0), (0, 1, 0), (0, 3, 0)],
]


def lengths_of(sizes=SIZES, most=60):
    rng = np.random.default_rng(1)
    return [rng.integers(1, most, size) for size in sizes]


def plan(**changes):
    settings = {
        "seed": 3,
        "epoch": 0,
        "sizes": SIZES,
        "weights": SIZES,
        "lengths": lengths_of(),
        "tokens_per_pack": 100,
    }
    return plan_epoch(**{**settings, **changes})


def flat(packs):
    return list(chain.from_iterable(packs))


def test_every_sample_once_per_epoch_with_weights_equal_to_sizes():
    for epoch in (0, 1, 5):
        picks = flat(plan(epoch=epoch))
        seen = sorted((pick.source, pick.sample) for pick in picks)
        assert seen == [(source, n) for source, size in enumerate(SIZES) for n in range(size)]
        assert {pick.visit for pick in picks} == {epoch}


@pytest.mark.parametrize("tokens_per_pack", [60, 100, 1000])
def test_packs_never_exceed_the_budget_and_are_well_filled(tokens_per_pack):
    lengths = lengths_of()
    packs = plan(tokens_per_pack=tokens_per_pack)
    totals = [sum(lengths[pick.source][pick.sample] for pick in pack) for pack in packs]
    assert max(totals) <= tokens_per_pack
    assert sum(totals) / (len(packs) * tokens_per_pack) > 0.9


def test_equal_arguments_give_equal_plans_and_seed_and_epoch_change_them():
    assert plan() == plan()
    assert flat(plan()) != flat(plan(seed=4))
    assert flat(plan()) != flat(plan(epoch=1))


def test_the_plan_is_the_same_on_every_machine():
    # A recorded plan: a change here breaks the exact resume of saved runs (iteration order).
    packs = plan_epoch(
        seed=0,
        epoch=0,
        sizes=[5, 3],
        weights=[5, 3],
        lengths=[np.array([4, 2, 7, 1, 3]), np.array([5, 5, 2])],
        tokens_per_pack=10,
    )
    recorded = [[tuple(pick) for pick in pack] for pack in packs]
    assert recorded == RECORDED


def test_weights_are_shares_of_samples_over_the_epochs():
    counts = Counter()
    for epoch in range(4):
        picks = flat(plan(epoch=epoch, weights=(1, 1, 2), samples_per_epoch=400))
        assert len(picks) == 400
        counts.update(pick.source for pick in picks)
    assert counts == {0: 400, 1: 400, 2: 800}


def test_a_small_source_is_repeated_only_after_all_of_it_was_seen():
    visits = Counter()
    for epoch in range(3):
        for pick in flat(plan(epoch=epoch, weights=(0, 1, 0), samples_per_epoch=100)):
            visits[pick.sample, pick.visit] += 1
    assert set(visits.values()) == {1}
    assert sum(visits.values()) == 300
    complete = Counter(visit for _, visit in visits)
    assert [complete[visit] for visit in range(4)] == [70, 70, 70, 70]


def test_a_large_source_is_seen_whole_over_the_epochs():
    picks = [
        pick
        for epoch in range(11)
        for pick in flat(plan(epoch=epoch, weights=(0, 0, 1), samples_per_epoch=100))
    ]
    assert len({pick.sample for pick in picks}) == 1100


def test_order_is_mixed_over_the_whole_epoch():
    picks = flat(plan())
    first = picks[: len(picks) // 4]
    share = sum(pick.source == 2 for pick in first) / len(first)
    assert 0.6 < share < 0.9
    assert [pick.sample for pick in picks if pick.source == 0] != sorted(range(300))


def test_only_the_last_pack_of_all_windows_may_stay_empty():
    size = 3 * PACKING_WINDOW
    packs = plan(
        sizes=[size],
        weights=[1.0],
        lengths=[np.full(size, 7)],
        tokens_per_pack=50,
    )
    assert sum(len(pack) < 7 for pack in packs) <= 1


def test_a_sample_longer_than_a_pack_stands_alone():
    lengths = lengths_of()
    lengths[1][5] = 101
    alone = [pack for pack in plan(lengths=lengths) if any(p[:2] == (1, 5) for p in pack)]
    assert [len(pack) for pack in alone] == [1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes": ()}, "at least one source"),
        ({"weights": (1, 2)}, "one of each per source"),
        ({"weights": (1, -2, 1)}, "may be negative"),
        ({"weights": (0, 0, 0)}, "nor all zero"),
        ({"sizes": (300, 70, 1000)}, "another number of lengths"),
        ({"samples_per_epoch": 0}, "samples_per_epoch=0"),
        ({"tokens_per_pack": 0}, "tokens_per_pack=0"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        plan(**changes)


def test_an_empty_source_needs_weight_zero():
    empty = {"sizes": (0, 70, 1100), "lengths": lengths_of((0, 70, 1100))}
    with pytest.raises(ConfigError, match="no samples"):
        plan(**empty, weights=(1, 1, 1))
    assert flat(plan(**empty, weights=(0, 1, 1)))


def test_shares_are_whole_and_sum_up():
    assert share_out(10, [1, 1, 1]) == [4, 3, 3]
    assert share_out(7, [0.5, 0.25, 0.25]) == [3, 2, 2]
    assert share_out(5, [1, 0]) == [5, 0]
