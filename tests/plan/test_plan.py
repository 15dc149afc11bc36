import json
from types import SimpleNamespace

import pytest

from mllm_npu.plan import plan as module
from mllm_npu.plan.plan import count, duration, gib, goodput_at, make_plan, price_of
from mllm_npu.plan.search import Candidate

TINY = ("experiment=digits/mllm", "parallel=fsdp2", "cluster=h100_8", "plan.tries=0")


@pytest.fixture
def dry_runs(monkeypatch, make_traced):
    """Dry runs that are not made; the configurations they were asked for."""
    asked = []

    def trace(config, *, ranks, device, pack):
        asked.append(config)
        return make_traced(ranks=ranks, data_ranks=ranks)

    monkeypatch.setattr("mllm_npu.plan.planner.trace_step", trace)
    return asked


def test_a_plan_is_plain_values(dry_runs):
    made = make_plan([*TINY, "plan.train_tokens=1e9", "plan.price_per_hour=2"])
    values = json.loads(json.dumps(made.as_values()))
    assert values["ranks"] == 8
    assert values["fits"] is True
    assert sum(values["step"]["parts"].values()) == pytest.approx(values["step"]["seconds"])
    assert values["memory"]["needed"] == 21 << 30
    assert values["price"]["tokens"] == 1e9
    assert values["price"]["cost"] == pytest.approx(2 * values["price"]["device_hours"])
    assert values["candidates"] == []
    assert [row["ranks"] for row in values["goodput"]] == [8]
    assert "not measured" in " ".join(values["notes"])
    assert len(dry_runs) == 1


def test_searching_and_more_ranks_are_asked_for(dry_runs):
    labels = []

    def bars(label):
        labels.append(label)
        return lambda done, total: None

    made = make_plan(
        [*TINY, "plan.goodput.ranks=[100]", "plan.search.pack_scale=[1,2]"],
        with_search=True,
        with_fleet=True,
        bars=bars,
    )
    assert labels == ["8 ranks", "100 ranks", "dry runs"]
    assert [one.ranks for one in made.goodput] == [8, 100]
    assert len(made.candidates) == len(dry_runs) > 3
    assert made.as_values()["candidates"][0]["fits"]


def test_length_and_cost(make_plan):
    made = make_plan()
    planner = SimpleNamespace(
        cluster=made.cluster,
        options=SimpleNamespace(train_tokens=None, price_per_hour=None),
        config=SimpleNamespace(train={"max_steps": 1000}),
    )
    price = price_of(planner, made.outcome, 0.5)
    assert price.tokens == 1000 * 4096 * 8
    assert price.days * 86400 == pytest.approx(2 * 1000 * made.outcome.step.seconds)
    assert price.device_hours == pytest.approx(price.days * 24 * 8)
    assert price.cost is None


def test_goodput_between_intervals(make_plan):
    found = make_plan().goodput[0]
    assert goodput_at(found, found.best_interval) == pytest.approx(found.best_goodput)
    left, right = found.intervals[3], found.intervals[4]
    between = goodput_at(found, (left * right) ** 0.5)
    assert between == pytest.approx((found.goodput[3] + found.goodput[4]) / 2)


def test_a_synchronous_checkpoint_blocks_while_it_is_written(dry_runs):
    from mllm_npu.plan.planner import Planner

    for asynchronous, block in (("true", 2.0), ("false", 16e9 / 10e9)):
        planner = Planner([*TINY, f"train.checkpoints.asynchronous={asynchronous}"])
        fleet = module.fleet_of(planner, planner.look(), 100)
        assert fleet.block_seconds == pytest.approx(block)
        assert fleet.write_seconds >= fleet.block_seconds
        assert fleet.ranks == 100


def test_a_refused_candidate_says_why(make_plan):
    made = make_plan()
    refused = Candidate(setting=made.outcome.setting, outcome=None, refused="heads")
    assert module.candidate_values(refused)["refused"] == "heads"


def test_sizes_and_times_can_be_read():
    assert count(15.3e9) == "15.30 billion"
    assert count(4.8e5) == "0.48 million"
    assert gib(3 << 30) == "3.00 GiB"
    assert gib(5 << 20) == "5.0 MiB"
    assert duration(0.0123) == "12.3 ms"
    assert duration(12.3) == "12.30 s"
    assert duration(600) == "10.0 min"
    assert duration(86400 * 3) == "3.0 days"
    assert duration(3 * 3600) == "3.0 h"
