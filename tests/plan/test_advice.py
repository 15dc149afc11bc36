from dataclasses import replace
from types import SimpleNamespace

import pytest

from mllm_npu.errors import ConfigError
from mllm_npu.plan.advice import advise, propose
from mllm_npu.plan.planner import Fit, Outcome
from mllm_npu.plan.search import Candidate
from mllm_npu.plan.setting import Setting

GIB = 1 << 30
BASE = Setting(
    kind="fsdp2",
    replicas=1,
    sequence_size=1,
    recompute="none",
    cpu_offload=False,
    tokens_per_pack=4096,
    accumulate=1,
)


@pytest.fixture
def outcome(make_traced, make_memory):
    def make(setting=BASE, *, needed=40, speed=1000.0, parts=None, **held):
        kinds = {"parameters": 5, "optimizer": 10, "gradients": 5, "activations": 40, **held}
        memory = make_memory(at_peak={name: size * GIB for name, size in kinds.items()})
        parts = {"compute": 1.0, "exchange": 0.1, "data": 0.0} | (parts or {})
        step = SimpleNamespace(
            tokens_per_second=speed,
            parts=parts,
            seconds=sum(parts.values()),
            limiting=max(parts, key=parts.get),
        )
        fit = Fit(needed=needed * GIB, limit=60 * GIB, host_needed=0, host_limit=1)
        return Outcome(
            setting=setting, traced=make_traced(memory=memory), step=step, fit=fit, seconds=0
        )

    return make


class FakePlanner:
    def __init__(self, cluster, outcomes, tries=3):
        self.cluster = cluster
        self.outcomes = outcomes
        self.options = SimpleNamespace(tries=tries)
        self.looks = []

    def look(self, setting):
        self.looks.append(setting)
        found = self.outcomes(setting)
        if found is None:
            raise ConfigError("refused")
        return found


def test_what_is_too_large_is_recomputed_first(outcome, make_cluster):
    """10 GiB too many: recomputing, shorter packs and offload each free enough."""
    wishes = propose(outcome(needed=70), make_cluster())
    assert [wish.distance(BASE) for wish in wishes] == [1, 1, 1]
    assert wishes[0].recompute == "full"
    assert wishes[1].tokens_per_pack == 2048
    assert wishes[2].cpu_offload


def test_what_frees_too_little_is_not_proposed_where_something_frees_enough(outcome, make_cluster):
    wishes = propose(outcome(needed=90), make_cluster())
    assert [wish.recompute for wish in wishes] == ["full"]


def test_where_nothing_frees_enough_the_largest_comes_first(outcome, make_cluster):
    wishes = propose(outcome(needed=500), make_cluster())
    assert wishes[0].recompute == "full"
    assert len(wishes) == 3


def test_copies_of_the_model_are_sharded(outcome, make_cluster):
    whole = replace(BASE, kind="ddp", recompute="full", tokens_per_pack=None)
    wishes = propose(outcome(whole, needed=75), make_cluster())
    assert [wish.kind for wish in wishes] == ["fsdp2"]
    groups = replace(whole, kind="hsdp", replicas=2)
    assert propose(outcome(groups, needed=65), make_cluster())[0].replicas == 1


@pytest.mark.parametrize(
    ("parts", "setting", "first"),
    [
        ({"compute": 1.0}, replace(BASE, recompute="full"), {"recompute": "selective"}),
        ({"compute": 1.0}, replace(BASE, recompute="selective"), {"recompute": "none"}),
        ({"exchange": 5.0}, BASE, {"kind": "hsdp", "replicas": 4}),
        ({"host": 5.0}, BASE, {"tokens_per_pack": 8192}),
        ({"launch": 5.0}, BASE, {"tokens_per_pack": 8192}),
    ],
)
def test_what_takes_most_is_shortened(outcome, make_cluster, parts, setting, first):
    wishes = propose(outcome(setting, parts=parts), make_cluster(num_nodes=4))
    assert wishes[0] == replace(setting, **first)


def test_the_change_is_tried_and_compared(outcome, make_cluster):
    slow = replace(BASE, recompute="full")
    planner = FakePlanner(make_cluster(), lambda setting: outcome(setting, speed=1300.0))
    advice = advise(planner, outcome(slow), [])
    assert list(advice.overrides) == ["parallel.recompute=selective"]
    assert "Multiplying matrices takes 91% of the step." in advice.text
    assert "1,300 tokens/s (1.30 times), 40.0 of 60.0 GiB" in advice.text
    assert advice.outcome is not None


def test_a_change_that_is_not_faster_is_no_advice(outcome, make_cluster):
    planner = FakePlanner(make_cluster(), lambda setting: outcome(setting, speed=1001.0))
    assert advise(planner, outcome(replace(BASE, recompute="full")), []) is None
    assert len(planner.looks) == 2


def test_the_nearest_that_fits_is_told(outcome, make_cluster):
    def look(setting):
        return outcome(setting, needed=50 if setting.recompute == "full" else 65)

    planner = FakePlanner(make_cluster(), look)
    advice = advise(planner, outcome(needed=70), [])
    assert list(advice.overrides) == ["parallel.recompute=full"]
    assert advice.text.startswith("A step needs 10.0 GiB more than a device has.")


def test_without_tries_it_says_so(outcome, make_cluster):
    planner = FakePlanner(make_cluster(), None, tries=0)
    advice = advise(planner, outcome(needed=70), [])
    assert "Not tried" in advice.text
    assert advice.outcome is None
    assert planner.looks == []


def test_after_a_long_dry_run_nobody_waits_for_another(outcome, make_cluster):
    planner = FakePlanner(make_cluster(), None)
    advice = advise(planner, replace(outcome(needed=70), seconds=60.0), [])
    assert "Not tried" in advice.text
    assert planner.looks == []


def test_what_is_refused_is_passed_over(outcome, make_cluster):
    def look(setting):
        return None if setting.recompute == "full" else outcome(setting, needed=50)

    advice = advise(FakePlanner(make_cluster(), look), outcome(needed=70), [])
    assert list(advice.overrides) == ["dataset.tokens_per_pack=2048"]


def test_a_search_answers_without_more_dry_runs(outcome, make_cluster):
    fast = replace(BASE, kind="hsdp", replicas=2)
    tried = [Candidate(setting=fast, outcome=outcome(fast, speed=2000.0))]
    tried.append(Candidate(setting=BASE, outcome=None, refused="no"))
    planner = FakePlanner(make_cluster(), None)
    advice = advise(planner, outcome(), tried)
    assert set(advice.overrides) == {"parallel.kind=hsdp", "parallel.replicas=2"}
    assert planner.looks == []


def test_more_nodes_where_nothing_helps(outcome, make_cluster):
    planner = FakePlanner(make_cluster(), lambda setting: outcome(setting, needed=500))
    advice = advise(planner, outcome(needed=600), [])
    assert list(advice.overrides) == ["cluster.num_nodes=2"]
    assert "not tried" in advice.text


def test_more_workers_where_data_are_waited_for(outcome, make_cluster):
    planner = FakePlanner(make_cluster(), lambda setting: None)
    advice = advise(planner, outcome(parts={"data": 9.0}), [])
    assert list(advice.overrides) == ["dataset.num_workers=8"]
