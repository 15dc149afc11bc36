from dataclasses import replace
from types import SimpleNamespace

import pytest

from mllm_npu.errors import ConfigError
from mllm_npu.plan.options import SearchOptions
from mllm_npu.plan.planner import Fit, Outcome
from mllm_npu.plan.search import combinations, search
from mllm_npu.plan.setting import Setting

BASE = Setting(
    kind="fsdp2",
    replicas=1,
    sequence_size=1,
    recompute="full",
    cpu_offload=False,
    tokens_per_pack=1000,
    accumulate=1,
)


class FakePlanner:
    """Longer packs, less recomputing and two replicas are faster; packs of 2000 are too large."""

    def __init__(self, **search):
        self.looks = []
        self.cluster = SimpleNamespace(num_nodes=4)
        values = {
            "parallel": ["fsdp2", "hsdp"], "recompute": ["none", "full"], "cpu_offload": [False],
            "sequence_size": [1], "pack_scale": [1, 2], "accumulate": [], "each_with_each": False,
            "most": 30,
        }  # fmt: skip
        self.options = SimpleNamespace(search=SearchOptions(**{**values, **search}))

    def look(self, setting):
        self.looks.append(setting)
        if setting.replicas == 4:
            raise ConfigError("four are\nrefused")
        speed = setting.tokens_per_pack * (2 if setting.recompute == "none" else 1)
        speed *= 3 if setting.replicas == 2 else 1
        limit = 1e9
        needed = limit * (1.5 if setting.tokens_per_pack > 1500 else 0.5)
        return Outcome(
            setting=setting,
            traced=None,
            step=SimpleNamespace(tokens_per_second=speed),
            fit=Fit(needed=needed, limit=limit, host_needed=0, host_limit=1),
            seconds=0.0,
        )

    def scale(self, one, two, count):
        assert (one.setting.accumulate, two.setting.accumulate) == (1, 2)
        return replace(one, setting=replace(one.setting, accumulate=count))


def run(planner, **options):
    return search(planner, planner.look(BASE), **options)


def test_the_best_comes_first_and_what_is_too_large_later():
    planner = FakePlanner()
    found = run(planner)
    best = found[0]
    assert best.setting == replace(BASE, kind="hsdp", replicas=2, recompute="none")
    assert best.fits
    order = [candidate.rank[0] for candidate in found]
    assert order == sorted(order)
    assert found[-1].refused == "four are refused"
    assert any(candidate.outcome and not candidate.fits for candidate in found)


def test_values_are_chosen_one_after_the_other():
    planner = FakePlanner()
    run(planner)
    # The configuration, two more ways to spread it, one more way to recompute, one more length.
    assert len(planner.looks) == 5
    assert planner.looks[-1] == replace(
        BASE, kind="hsdp", replicas=2, recompute="none", tokens_per_pack=2000
    )


def test_or_each_with_each_the_nearest_first():
    planner = FakePlanner(each_with_each=True)
    found = run(planner)
    assert len(found) == 3 * 2 * 2
    assert len(planner.looks) == len(found)
    few = FakePlanner(each_with_each=True, most=4)
    assert len(run(few)) == 4
    assert [setting.distance(BASE) for setting in few.looks] == [0, 1, 1, 2]


def test_combinations_are_all_different():
    planner = FakePlanner(sequence_size=[1, 2], cpu_offload=[False, True])
    found = list(combinations(planner.options.search, BASE, planner))
    assert len(set(found)) == len(found) == 3 * 2 * 2 * 2 * 2


def test_micro_batches_take_two_dry_runs():
    planner = FakePlanner(accumulate=[1, 4, 8])
    found = run(planner)
    assert {candidate.setting.accumulate for candidate in found} == {1, 2, 4, 8}
    assert [setting.accumulate for setting in planner.looks].count(2) == 1
    assert len(planner.looks) == 6


def test_data_without_a_pack_length_keep_it():
    planner = FakePlanner()
    without = replace(BASE, tokens_per_pack=None)
    found = list(combinations(planner.options.search, without, planner))
    assert {setting.tokens_per_pack for setting in found} == {None}


def test_progress_never_goes_back():
    seen = []
    run(FakePlanner(), progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert all(done < total for done, total in seen)


def test_an_error_of_another_kind_ends_the_search():
    planner = FakePlanner()
    base = planner.look(BASE)
    planner.look = lambda setting: 1 / 0
    with pytest.raises(ZeroDivisionError):
        search(planner, base)
